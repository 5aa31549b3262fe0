// SPDX-License-Identifier: Apache-2.0
#pragma once

// The loading side of the forward kernel: one thread that keeps the rings of queries, keys and
// values filled, a unit ahead of the others where there is room.

#include <cstdint>

#include "kernels/cuda/sm90/attend_shape.h"

namespace annulus::kernels::cuda {

template <int kDim, class Thread>
class AttendLoader {
 public:
  using Shape = AttendShape<kDim>;

  ANNULUS_KERNEL_INLINE AttendLoader(Thread& t, const HopperAttendParams& p)
      : t_(t), p_(p), shared_{t.shared()} {}

  // In the order in which they are needed: the queries, the first keys, and from there on the next
  // keys before the values, since their scores are formed while the values are still to be added.
  ANNULUS_KERNEL_INLINE void LoadUnit(const AttendUnit& unit) {
    KeyWalk walk(p_.kv_segments, p_.mask, unit.queries);
    int32_t before = -1;
    ANNULUS_KEEP_ROLLED
    while (walk.NextPartial()) LoadNext(unit, walk.row(), before);
    ANNULUS_KEEP_ROLLED
    while (walk.NextFull()) LoadNext(unit, walk.row(), before);
    if (before >= 0) LoadValues(unit, before);
  }

 private:
  ANNULUS_KERNEL_INLINE void LoadNext(const AttendUnit& unit, int32_t row, int32_t& before) {
    if (before < 0) LoadQueries(unit, static_cast<int32_t>(unit.queries.row));
    LoadKeys(unit, row);
    if (before >= 0) LoadValues(unit, before);
    before = row;
  }

  ANNULUS_KERNEL_INLINE void LoadQueries(const AttendUnit& unit, int32_t row) {
    const uint32_t full = shared_.QueriesFull(queries_.stage());
    t_.BarrierWait(shared_.QueriesEmpty(queries_.stage()), queries_.parity() ^ 1);
    t_.BarrierArriveExpect(full, Shape::kQueryBytes);
    ANNULUS_UNROLL
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      t_.LoadPanel(p_.q, full, shared_.Queries(queries_.stage()) + panel * Shape::kQueryPanelBytes,
                   panel * kPanelColumns, row, unit.head, unit.batch);
    }
    queries_.Advance();
  }

  ANNULUS_KERNEL_INLINE void LoadKeys(const AttendUnit& unit, int32_t row) {
    t_.BarrierWait(shared_.KeysEmpty(keys_.stage()), keys_.parity() ^ 1);
    LoadRows(p_.k, unit, row, shared_.Keys(keys_.stage()), shared_.KeysFull(keys_.stage()));
    keys_.Advance();
  }
  ANNULUS_KERNEL_INLINE void LoadValues(const AttendUnit& unit, int32_t row) {
    t_.BarrierWait(shared_.ValuesEmpty(values_.stage()), values_.parity() ^ 1);
    LoadRows(p_.v, unit, row, shared_.Values(values_.stage()), shared_.ValuesFull(values_.stage()));
    values_.Advance();
  }
  ANNULUS_KERNEL_INLINE void LoadRows(const TensorMap& map, const AttendUnit& unit, int32_t row,
                                      uint32_t to, uint32_t full) {
    t_.BarrierArriveExpect(full, Shape::kKeyBytes);
    ANNULUS_UNROLL
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      t_.LoadPanel(map, full, to + panel * Shape::kKeyPanelBytes, panel * kPanelColumns, row,
                   unit.kv_head, unit.batch);
    }
  }

  Thread& t_;
  const HopperAttendParams& p_;
  AttendShared<kDim> shared_;
  RingPlace<Shape::kQueryStages> queries_;
  RingPlace<Shape::kStages> keys_, values_;
};

}  // namespace annulus::kernels::cuda
