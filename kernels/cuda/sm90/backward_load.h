// SPDX-License-Identifier: Apache-2.0
#pragma once

// The loading side of the backward kernel: one warp that takes the block's units, loads their keys
// and values, and keeps the ring of queries filled: q, do, and a note of lse and delta. Nobody else
// walks the tiles for the computing side: the note says what it must know of one.

#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/cuda/sm90/attend_rows.h"
#include "kernels/cuda/sm90/backward_shape.h"

namespace annulus::kernels::cuda {

template <int kDim, class Thread>
class BackwardLoader {
 public:
  using Shape = BackwardShape<kDim>;

  ANNULUS_KERNEL_INLINE BackwardLoader(Thread& t, const HopperBackwardParams& p)
      : t_(t), p_(p), shared_{t.shared()}, lane_(t.thread() % 32) {}

  ANNULUS_KERNEL_INLINE void Load() {
    ANNULUS_KEEP_ROLLED
    for (int32_t round = 0;; ++round) {
      const int32_t index = TakeUnit(round);
      if (index >= p_.order.Units()) break;
      if (lane_ == 0) LoadKeys(BackwardUnit(p_, index));
      LoadQueriesOf(index);
    }
  }

 private:
  // The next unit: in turns, or where sums must come in order, whichever nobody has taken yet.
  // Tells the others. The last one to ask leaves the counter as it was.
  ANNULUS_KERNEL_INLINE int32_t TakeUnit(int32_t round) {
    t_.BarrierWait(shared_.KeysEmpty(), round % 2 ^ 1);
    if (lane_ == 0) {
      const int32_t units = p_.order.Units();
      const auto block = static_cast<int32_t>(t_.block());
      const auto blocks = static_cast<int32_t>(t_.blocks());
      int64_t index = IndexOfRound(round, block, blocks);
      if (p_.turns != nullptr) {
        index = t_.TakeNumber(p_.turns);
        if (index == int64_t{units} + blocks - 1) t_.PassOn(p_.turns, 0);
      }
      if (index > units) index = units;
      t_.StoreWord(shared_.Unit(), static_cast<uint32_t>(index));
      if (index == units) t_.BarrierArrive(shared_.KeysFull());
    }
    t_.NamedSync(kLoaderBarrier, 32);
    return static_cast<int32_t>(t_.LoadWord(shared_.Unit()));
  }

  ANNULUS_KERNEL_INLINE void LoadKeys(const BackwardUnit& unit) {
    const uint32_t full = shared_.KeysFull();
    const auto row = static_cast<int>(unit.keys.row);
    t_.BarrierArriveExpect(full, 2 * Shape::kKeyBytes);
    ANNULUS_UNROLL
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      const uint32_t at = panel * Shape::kKeyPanelBytes;
      t_.LoadPanel(p_.k, full, shared_.Keys() + at, panel * kPanelColumns, row, unit.kv_head,
                   unit.batch);
      t_.LoadPanel(p_.v, full, shared_.Values() + at, panel * kPanelColumns, row, unit.kv_head,
                   unit.batch);
    }
  }

  ANNULUS_KERNEL_INLINE void LoadQueriesOf(int32_t index) {
    const auto keys_of = [this, index] { return BackwardUnit(p_, t_.Forgotten(index)).keys; };
    ANNULUS_KEEP_ROLLED
    for (int32_t head = 0; head < p_.heads_each; ++head) {
      QueryWalk walk(p_.q_segments, p_.mask, Shape::kKeys, keys_of);
      ANNULUS_KEEP_ROLLED
      while (walk.Next()) {
        const BackwardUnit unit(p_, t_.Forgotten(index));
        LoadQueries(unit.batch, unit.kv_head * p_.heads_each + head, walk.tile(), walk.IsWhole());
      }
    }
    t_.BarrierWait(shared_.QueriesEmpty(stage_.stage()), stage_.parity() ^ 1);
    Note(QueryKind::kEnd, 0);
    if (lane_ == 0) t_.BarrierArrive(shared_.QueriesFull(stage_.stage()));
    Arrive();
  }

  // The barrier of a full stage counts every lane, and once more the one that loads.
  ANNULUS_KERNEL_INLINE void LoadQueries(int32_t batch, int32_t head, int32_t tile, bool whole) {
    const Tile queries = TileAt(p_.q_segments, tile);
    t_.BarrierWait(shared_.QueriesEmpty(stage_.stage()), stage_.parity() ^ 1);
    if (lane_ == 0) LoadPanels(batch, head, static_cast<int>(queries.row));
    bool alive = true;
    ANNULUS_UNROLL
    for (int pair = lane_; pair < Shape::kQueries / 2; pair += 32) {
      alive = NotePair(batch, head, queries, pair) && alive;
    }
    const bool any_dead = t_.NamedSyncOr(kLoaderBarrier, 32, !alive);
    Note(whole && !any_dead ? QueryKind::kWhole : QueryKind::kPartial, tile);
    Arrive();
  }

  ANNULUS_KERNEL_INLINE void LoadPanels(int32_t batch, int32_t head, int row) {
    const uint32_t full = shared_.QueriesFull(stage_.stage());
    t_.BarrierArriveExpect(full, 2 * Shape::kQueryBytes);
    ANNULUS_UNROLL
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      const uint32_t at = panel * Shape::kQueryPanelBytes;
      t_.LoadPanel(p_.q, full, shared_.Queries(stage_.stage()) + at, panel * kPanelColumns, row,
                   head, batch);
      t_.LoadPanel(p_.d_o, full, shared_.OutputGradients(stage_.stage()) + at,
                   panel * kPanelColumns, row, head, batch);
    }
  }

  // Notes lse and delta of queries 2 pair and 2 pair + 1; whether both contribute.
  ANNULUS_KERNEL_INLINE bool NotePair(int32_t batch, int32_t head, const Tile& queries, int pair) {
    float lse[2];
    float delta[2];
    ANNULUS_UNROLL
    for (int e = 0; e < 2; ++e) {
      const int row = 2 * pair + e;
      const int64_t at = queries.row + row + p_.dq_row_offset;
      lse[e] = -std::numeric_limits<float>::infinity();
      delta[e] = 0.0f;
      if (row < queries.rows) {
        lse[e] = RowStatAt(p_.lse, batch, at, head) * kLog2OfE;
        delta[e] = RowStatAt(p_.delta, batch, at, head);
      }
    }
    const auto word = [](float value) { return std::bit_cast<uint32_t>(value); };
    t_.StoreFour(shared_.Notes(stage_.stage()) + 16 + 16 * pair,
                 {{word(lse[0]), word(lse[1]), word(delta[0]), word(delta[1])}});
    constexpr float kDead = -std::numeric_limits<float>::infinity();
    return lse[0] != kDead && lse[1] != kDead;
  }

  ANNULUS_KERNEL_INLINE void Note(QueryKind kind, int32_t tile) {
    if (lane_ != 0) return;
    t_.StoreWord(shared_.Notes(stage_.stage()), static_cast<uint32_t>(kind));
    t_.StoreWord(shared_.Notes(stage_.stage()) + 4, static_cast<uint32_t>(tile));
  }
  ANNULUS_KERNEL_INLINE void Arrive() {
    t_.BarrierArrive(shared_.QueriesFull(stage_.stage()));
    stage_.Advance();
  }

  Thread& t_;
  const HopperBackwardParams& p_;
  BackwardPlaces<kDim> shared_;
  const int lane_;
  RingPlace<Shape::kStages> stage_;
};

}  // namespace annulus::kernels::cuda
