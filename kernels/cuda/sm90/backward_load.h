// SPDX-License-Identifier: Apache-2.0
#pragma once

// The loading side of the backward kernel: one thread that takes the block's units, loads their
// keys and values, and keeps the ring of queries filled. Nobody else walks the tiles: a header with
// each stage says what the others must know of its tile.

#include <cstdint>

#include "kernels/cuda/sm90/backward_shape.h"

namespace annulus::kernels::cuda {

template <int kDim, class Thread>
class BackwardLoader {
 public:
  using Shape = BackwardShape<kDim>;

  ANNULUS_KERNEL_INLINE BackwardLoader(Thread& t, const HopperBackwardParams& p)
      : t_(t), p_(p), shared_{t.shared()} {}

  ANNULUS_KERNEL_INLINE void Load() {
    ANNULUS_KEEP_ROLLED
    for (int32_t round = 0;; ++round) {
      const int32_t index = TakeUnit(round);
      if (index >= p_.order.Units()) break;
      LoadUnit(BackwardUnit(p_, index));
    }
    Announce(QueryKind::kOver);
  }

 private:
  // The next unit: in turns, or where sums must come in order, whichever nobody has taken yet.
  // Tells the others. The last one to ask leaves the counter as it was.
  ANNULUS_KERNEL_INLINE int32_t TakeUnit(int32_t round) {
    t_.BarrierWait(shared_.KeysEmpty(), round % 2 ^ 1);
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
    return static_cast<int32_t>(index);
  }

  ANNULUS_KERNEL_INLINE void LoadUnit(const BackwardUnit& unit) {
    LoadKeys(unit);
    const auto keys_of = [this, tile = unit.tile] {
      return TileAt(p_.kv_segments, t_.Forgotten(tile));
    };
    ANNULUS_KEEP_ROLLED
    for (int32_t head = 0; head < p_.heads_each; ++head) {
      QueryWalk walk(p_.q_segments, p_.mask, Shape::kKeys, keys_of);
      ANNULUS_KEEP_ROLLED
      while (walk.Next()) {
        LoadQueries(walk, unit.kv_head * p_.heads_each + head, unit.batch, unit.tile);
      }
    }
    Announce(QueryKind::kEnd);
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

  template <class Walk>
  ANNULUS_KERNEL_INLINE void LoadQueries(const Walk& walk, int32_t head, int32_t batch,
                                         int32_t key_tile) {
    const uint32_t header = AwaitStage();
    const QueryKind kind = walk.IsWhole() ? QueryKind::kWhole : QueryKind::kPartial;
    t_.StoreFour(header, {{static_cast<uint32_t>(kind), static_cast<uint32_t>(walk.tile()),
                           static_cast<uint32_t>(walk.row()), static_cast<uint32_t>(walk.rows())}});
    t_.StoreFour(header + 16, {{static_cast<uint32_t>(head), static_cast<uint32_t>(batch),
                                static_cast<uint32_t>(key_tile), 0}});
    t_.BarrierArrive(shared_.HeaderFull(stage_.stage()));
    LoadPanels(walk.row(), head, batch);
    stage_.Advance();
  }

  ANNULUS_KERNEL_INLINE void LoadPanels(int row, int32_t head, int32_t batch) {
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

  // A stage without a tile.
  ANNULUS_KERNEL_INLINE void Announce(QueryKind kind) {
    t_.StoreWord(AwaitStage(), static_cast<uint32_t>(kind));
    t_.BarrierArrive(shared_.HeaderFull(stage_.stage()));
    t_.BarrierArrive(shared_.QueriesFull(stage_.stage()));
    stage_.Advance();
  }

  // Until the next stage is free: where its header goes.
  ANNULUS_KERNEL_INLINE uint32_t AwaitStage() {
    t_.BarrierWait(shared_.QueriesEmpty(stage_.stage()), stage_.parity() ^ 1);
    return shared_.Notes(stage_.stage());
  }

  Thread& t_;
  const HopperBackwardParams& p_;
  BackwardPlaces<kDim> shared_;
  RingPlace<Shape::kStages> stage_;
};

}  // namespace annulus::kernels::cuda
