// SPDX-License-Identifier: Apache-2.0
#pragma once

// The backward kernel of compute capability 9.0: its parameters, its tiles, and where they lie in
// shared memory.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/sm90/attend_shape.h"
#include "kernels/cuda/sm90/hopper_thread.h"
#include "kernels/cuda/sm90/query_walk.h"
#include "kernels/cuda/sm90/unit_order.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/tile_schedule.h"

namespace annulus::kernels::cuda {

// dq, dk, dv += gradients of the segments of q over those of kv. Maps of q and d_o load
// BackwardShape::kQueries rows, those of k and v kKeys; the segment lists have those as tile_rows.
// The order is of tiles of keys and KV heads (heads_each = 1). Rows of dq, dk and dv lie on 16
// bytes.
struct HopperBackwardParams {
  TensorMap q, d_o, k, v;
  SegmentList q_segments, kv_segments;
  annulusTensor dq, dk, dv;
  annulusRowStat lse, delta;
  annulusMask mask;
  float softmax_scale;
  int32_t heads_each;  // query heads of a KV head
  int64_t dq_row_offset;
  int64_t dkv_row_offset;
  UnitOrder order;
  // Null: sums of dq come as they come. Otherwise BackwardTurns(...) words, zero before the launch
  // and again after it, by which they come in the order of the tiles of keys: see backward_add.h.
  int32_t* turns;
};
static_assert(sizeof(HopperBackwardParams) <= 4096, "the parameters of a kernel are 4 KiB at most");

// A counter of units, and one of turns for each tile of queries of a query head.
ANNULUS_HOST_DEVICE inline int64_t BackwardTurns(int64_t query_tiles, int64_t heads,
                                                 int64_t batches) {
  return 1 + query_tiles * heads * batches;
}

inline constexpr uint32_t kNoteHeaderBytes = 32;

// Head sizes up to kDim, 64 or 128. One warpgroup loads and adds up, two compute: each owns 64 of
// the block's 128 keys.
template <int kDim>
struct BackwardShape {
  static constexpr int kConsumers = 2;
  static constexpr int kConsumerThreads = kConsumers * kWarpgroupThreads;
  static constexpr int kThreads = kConsumerThreads + kWarpgroupThreads;
  static constexpr int kKeysEach = 64;
  static constexpr int kKeys = kConsumers * kKeysEach;
  static constexpr int kQueries = kDim == 64 ? 128 : 64;

  static constexpr int kProducerRegisters = 24;
  static constexpr int kConsumerRegisters = 240;

  static constexpr int kStages = 2;  // of queries
  static constexpr int kPanels = kDim / kPanelColumns;
  static constexpr int kQueryPanels = kQueries / kPanelColumns;

  static constexpr uint32_t kKeyPanelBytes = kKeys * kPanelRowBytes;
  static constexpr uint32_t kKeyBytes = kPanels * kKeyPanelBytes;
  static constexpr uint32_t kQueryPanelBytes = kQueries * kPanelRowBytes;
  static constexpr uint32_t kQueryBytes = kPanels * kQueryPanelBytes;
  static constexpr uint32_t kWeightBytes = kQueryPanels * kKeyPanelBytes;  // kKeys x kQueries
  // A row of dq in float32. 32 bytes more than it needs: eight rows on other banks.
  static constexpr uint32_t kSumRowBytes = kDim * sizeof(float) + 32;
  static constexpr uint32_t kSumBytes = kQueries * kSumRowBytes;
  static constexpr uint32_t kNoteBytes = kNoteHeaderBytes + kQueries / 2 * 16;

  static constexpr uint32_t kValuesAt = kKeyBytes;
  static constexpr uint32_t kQueriesAt = kValuesAt + kKeyBytes;
  static constexpr uint32_t kWeightsAt = kQueriesAt + kStages * 2 * kQueryBytes;
  static constexpr uint32_t kSumsAt = kWeightsAt + kWeightBytes;
  static constexpr uint32_t kNotesAt = kSumsAt + kSumBytes;
  static constexpr uint32_t kBarriersAt = kNotesAt + kStages * kNoteBytes;
  static constexpr uint32_t kUnitAt = kBarriersAt + 8 * (2 + 3 * kStages);
  static constexpr uint32_t kSharedBytes = kUnitAt + 16;
  static_assert(kSumsAt % kPatternBytes == 0 && kWeightBytes <= kSumBytes);
  static_assert(kSharedBytes <= 227 << 10);
  static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 65536 / kWarpgroupThreads);
};

// Named barriers.
inline constexpr int kWeightsReady = 1;  // both warpgroups have written d_scores
inline constexpr int kSumsFree = 2;      // the room for sums may be written
inline constexpr int kSumsReady = 3;     // and be added from
inline constexpr int kTileVote = 4;

// What the loader says of the tile of queries in a stage.
enum class QueryKind : uint32_t {
  kWhole,    // every query is there, alive, and sees every key
  kPartial,  // not so
  kEnd,      // no tile: the unit is over
  kOver,     // nor another unit: only the noter and the adder are still there to see it
};

// Where tiles and barriers are in the block's shared memory.
template <int kDim>
struct BackwardPlaces {
  using Shape = BackwardShape<kDim>;
  uint32_t base;

  ANNULUS_KERNEL_INLINE uint32_t Keys() const { return base; }
  ANNULUS_KERNEL_INLINE uint32_t Values() const { return base + Shape::kValuesAt; }
  ANNULUS_KERNEL_INLINE uint32_t Queries(uint32_t stage) const {
    return base + Shape::kQueriesAt + stage * (2 * Shape::kQueryBytes);
  }
  ANNULUS_KERNEL_INLINE uint32_t OutputGradients(uint32_t stage) const {
    return Queries(stage) + Shape::kQueryBytes;
  }
  // Weights or their gradients as kKeys rows of queries, swizzled; and dq as float32.
  ANNULUS_KERNEL_INLINE uint32_t Weights() const { return base + Shape::kWeightsAt; }
  ANNULUS_KERNEL_INLINE uint32_t Sums() const { return base + Shape::kSumsAt; }
  // A header {kind, number of the tile, its first row, its rows; head, batch, tile of keys, 0} and
  // for each two queries {lse, lse, delta, delta}: lse in units of log2, -inf for a query that
  // contributes nothing.
  ANNULUS_KERNEL_INLINE uint32_t Notes(uint32_t stage) const {
    return base + Shape::kNotesAt + stage * Shape::kNoteBytes;
  }
  ANNULUS_KERNEL_INLINE uint32_t KeysFull() const { return Barrier(0); }
  ANNULUS_KERNEL_INLINE uint32_t KeysEmpty() const { return Barrier(1); }
  ANNULUS_KERNEL_INLINE uint32_t QueriesFull(uint32_t stage) const { return Barrier(2 + stage); }
  ANNULUS_KERNEL_INLINE uint32_t QueriesEmpty(uint32_t stage) const {
    return Barrier(2 + Shape::kStages + stage);
  }
  // Written by the loader, for the noter.
  ANNULUS_KERNEL_INLINE uint32_t HeaderFull(uint32_t stage) const {
    return Barrier(2 + 2 * Shape::kStages + stage);
  }
  // The number of the unit whose keys these are; beyond the last: there is none.
  ANNULUS_KERNEL_INLINE uint32_t Unit() const { return base + Shape::kUnitAt; }

 private:
  ANNULUS_KERNEL_INLINE uint32_t Barrier(uint32_t i) const {
    return base + Shape::kBarriersAt + 8 * i;
  }
};

// A tile of keys of one KV head. The order has the last tiles first; under a causal mask the first
// keys are the ones with most queries.
struct BackwardUnit {
  int32_t tile;
  int32_t kv_head;
  int32_t batch;
  Tile keys;

  ANNULUS_KERNEL_INLINE BackwardUnit(const HopperBackwardParams& p, int32_t index) {
    const OrderedUnit unit = UnitAt(p.order, index);
    tile = p.order.tiles - 1 - unit.tile;
    kv_head = unit.kv_head;
    batch = unit.batch;
    keys = TileAt(p.kv_segments, tile);
  }
};

}  // namespace annulus::kernels::cuda
