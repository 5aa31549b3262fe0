// SPDX-License-Identifier: Apache-2.0
#pragma once

// The forward kernel of compute capability 9.0: its parameters, its tiles, and where they lie in
// shared memory.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/sm90/hopper_thread.h"
#include "kernels/cuda/sm90/key_walk.h"
#include "kernels/cuda/sm90/unit_order.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/tile_schedule.h"

namespace annulus::kernels::cuda {

// o, lse <- merge((o, lse), attention of the segments of q over those of kv). The maps of q load
// AttendShape::kQueries rows, those of k and v kWalkKeys.
struct HopperAttendParams {
  TensorMap q, k, v;
  SegmentList q_segments, kv_segments;
  annulusTensor o;
  annulusRowStat lse;
  annulusMask mask;
  float softmax_scale;
  int64_t o_row_offset;
  UnitOrder order;
};
static_assert(sizeof(HopperAttendParams) <= 4096, "the parameters of a kernel are 4 KiB at most");

// Head sizes up to kDim, 64 or 128. One warpgroup loads; each of the others owns 64 queries.
template <int kDim>
struct AttendShape {
  static constexpr int kConsumers = kDim == 64 ? 3 : 2;
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroupThreads;
  static constexpr int kQueriesEach = 64;
  static constexpr int kQueries = kConsumers * kQueriesEach;

  // Registers of a thread: what the loading warpgroup gives up the others take.
  static constexpr int kProducerRegisters = kDim == 64 ? 32 : 24;
  static constexpr int kConsumerRegisters = kDim == 64 ? 160 : 240;

  static constexpr int kStages = kDim == 64 ? 4 : 2;  // of keys, and of values
  static constexpr int kQueryStages = 2;

  static constexpr int kPanels = kDim / kPanelColumns;
  static constexpr uint32_t kQueryPanelBytes = kQueries * kPanelRowBytes;
  static constexpr uint32_t kQueryBytes = kPanels * kQueryPanelBytes;
  static constexpr uint32_t kKeyPanelBytes = kWalkKeys * kPanelRowBytes;
  static constexpr uint32_t kKeyBytes = kPanels * kKeyPanelBytes;

  static constexpr uint32_t kKeysAt = kQueryStages * kQueryBytes;
  static constexpr uint32_t kValuesAt = kKeysAt + kStages * kKeyBytes;
  static constexpr uint32_t kBarriersAt = kValuesAt + kStages * kKeyBytes;
  static constexpr uint32_t kBarriers = 2 * (kQueryStages + 2 * kStages);
  static constexpr uint32_t kSharedBytes = kBarriersAt + 8 * kBarriers;
  static_assert(kSharedBytes <= 227 << 10);
  static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 65536 / kWarpgroupThreads);
};

// A unit of the grid and its tile of queries.
struct AttendUnit : OrderedUnit {
  Tile queries;

  ANNULUS_KERNEL_INLINE AttendUnit(const HopperAttendParams& p, int32_t index)
      : OrderedUnit(UnitAt(p.order, index)), queries(TileAt(p.q_segments, tile)) {}
};

// A place in a ring of stages, a power of two of them: which one, and the parity of its present
// round. One register.
template <int kStages>
struct RingPlace {
  static_assert((kStages & (kStages - 1)) == 0);
  uint32_t turn = 0;

  ANNULUS_KERNEL_INLINE uint32_t stage() const { return turn % kStages; }
  ANNULUS_KERNEL_INLINE uint32_t parity() const { return turn / kStages % 2; }
  ANNULUS_KERNEL_INLINE void Advance() { ++turn; }
};

// Where tiles and barriers are in the block's shared memory. `full`: the tile has arrived; `empty`:
// all that read it are through.
template <int kDim>
struct AttendShared {
  using Shape = AttendShape<kDim>;
  uint32_t base;

  ANNULUS_KERNEL_INLINE uint32_t Queries(uint32_t stage) const {
    return base + stage * Shape::kQueryBytes;
  }
  ANNULUS_KERNEL_INLINE uint32_t Keys(uint32_t stage) const {
    return base + Shape::kKeysAt + stage * Shape::kKeyBytes;
  }
  ANNULUS_KERNEL_INLINE uint32_t Values(uint32_t stage) const {
    return base + Shape::kValuesAt + stage * Shape::kKeyBytes;
  }
  ANNULUS_KERNEL_INLINE uint32_t KeysFull(uint32_t stage) const { return Barrier(stage); }
  ANNULUS_KERNEL_INLINE uint32_t KeysEmpty(uint32_t stage) const {
    return Barrier(Shape::kStages + stage);
  }
  ANNULUS_KERNEL_INLINE uint32_t ValuesFull(uint32_t stage) const {
    return Barrier(2 * Shape::kStages + stage);
  }
  ANNULUS_KERNEL_INLINE uint32_t ValuesEmpty(uint32_t stage) const {
    return Barrier(3 * Shape::kStages + stage);
  }
  ANNULUS_KERNEL_INLINE uint32_t QueriesFull(uint32_t stage) const {
    return Barrier(4 * Shape::kStages + stage);
  }
  ANNULUS_KERNEL_INLINE uint32_t QueriesEmpty(uint32_t stage) const {
    return Barrier(4 * Shape::kStages + Shape::kQueryStages + stage);
  }

 private:
  ANNULUS_KERNEL_INLINE uint32_t Barrier(uint32_t i) const {
    return base + Shape::kBarriersAt + 8 * i;
  }
};

}  // namespace annulus::kernels::cuda
