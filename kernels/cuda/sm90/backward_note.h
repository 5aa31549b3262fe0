// SPDX-License-Identifier: Apache-2.0
#pragma once

// The noting side of the backward kernel: one warp that puts lse and delta of each tile of queries
// beside it, as the loader's headers tell it to.

#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/cuda/sm90/attend_rows.h"
#include "kernels/cuda/sm90/backward_shape.h"

namespace annulus::kernels::cuda {

template <int kDim, class Thread>
class BackwardNoter {
 public:
  using Shape = BackwardShape<kDim>;

  ANNULUS_KERNEL_INLINE BackwardNoter(Thread& t, const HopperBackwardParams& p)
      : t_(t), p_(p), shared_{t.shared()}, lane_(t.thread() % 32) {}

  // The barrier of a full stage counts every lane, and once more the loader.
  ANNULUS_KERNEL_INLINE void Note() {
    RingPlace<Shape::kStages> stage;
    ANNULUS_KEEP_ROLLED
    for (QueryKind kind = QueryKind::kEnd; kind != QueryKind::kOver; stage.Advance()) {
      t_.BarrierWait(shared_.HeaderFull(stage.stage()), stage.parity());
      const uint32_t notes = shared_.Notes(stage.stage());
      kind = static_cast<QueryKind>(t_.LoadWord(notes));
      if (kind == QueryKind::kWhole || kind == QueryKind::kPartial) NoteTile(notes);
      t_.BarrierArrive(shared_.QueriesFull(stage.stage()));
    }
  }

 private:
  static constexpr float kDead = -std::numeric_limits<float>::infinity();

  ANNULUS_KERNEL_INLINE void NoteTile(uint32_t notes) {
    bool alive = true;
    ANNULUS_KEEP_ROLLED
    for (uint32_t query = lane_; query < Shape::kQueries; query += 32) {
      alive = NoteQuery(notes, query) && alive;
    }
    const bool any_dead = t_.AnyInWarp(!alive);
    if (any_dead && lane_ == 0) t_.StoreWord(notes, static_cast<uint32_t>(QueryKind::kPartial));
  }

  // Notes lse and delta; whether the query contributes.
  ANNULUS_KERNEL_INLINE bool NoteQuery(uint32_t notes, uint32_t query) {
    const FourWords tile = t_.LoadFour(notes);
    const FourWords place = t_.LoadFour(notes + 16);
    float lse = kDead;
    float delta = 0.0f;
    if (query < tile.at[3]) {
      const int64_t row = tile.at[2] + query + p_.dq_row_offset;
      lse = RowStatAt(p_.lse, place.at[1], row, place.at[0]) * kLog2OfE;
      delta = RowStatAt(p_.delta, place.at[1], row, place.at[0]);
    }
    const uint32_t to = notes + kNoteHeaderBytes + query / 2 * 16 + query % 2 * 4;
    t_.StoreWord(to, std::bit_cast<uint32_t>(lse));
    t_.StoreWord(to + 8, std::bit_cast<uint32_t>(delta));
    return lse != kDead;
  }

  Thread& t_;
  const HopperBackwardParams& p_;
  BackwardPlaces<kDim> shared_;
  const int lane_;
};

}  // namespace annulus::kernels::cuda
