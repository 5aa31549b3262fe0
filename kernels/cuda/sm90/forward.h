// SPDX-License-Identifier: Apache-2.0
#pragma once

// The forward pass for compute capability 9.0, bf16 and f16, head sizes up to 128: a persistent
// block with one warpgroup that loads and two or three that compute. See attend_load.h and
// attend_compute.h for the two sides, unit_order.h for what each block works on.

#include <cstdint>

#include "kernels/cuda/sm90/attend_compute.h"
#include "kernels/cuda/sm90/attend_load.h"
#include "kernels/cuda/sm90/attend_shape.h"

namespace annulus::kernels::cuda {

template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void InitAttendBarriers(Thread& t) {
  using Shape = AttendShape<kDim>;
  constexpr int kReaders = Shape::kConsumers * kWarpgroupThreads / 32;  // warps
  if (t.thread() == 0) {
    const AttendShared<kDim> shared{t.shared()};
    for (uint32_t stage = 0; stage < Shape::kStages; ++stage) {
      t.BarrierInit(shared.KeysFull(stage), 1);
      t.BarrierInit(shared.KeysEmpty(stage), kReaders);
      t.BarrierInit(shared.ValuesFull(stage), 1);
      t.BarrierInit(shared.ValuesEmpty(stage), kReaders);
    }
    for (uint32_t stage = 0; stage < Shape::kQueryStages; ++stage) {
      t.BarrierInit(shared.QueriesFull(stage), 1);
      t.BarrierInit(shared.QueriesEmpty(stage), kReaders);
    }
    t.FenceBarrierInit();
  }
  t.Sync();
}

// Calls visit(index, count) for each of the block's units that sees a key.
template <class Thread, class Visit>
ANNULUS_KERNEL_INLINE void ForEachUnit(const Thread& t, const HopperAttendParams& p, Visit visit) {
  const auto block = static_cast<int32_t>(t.block());
  const auto blocks = static_cast<int32_t>(t.blocks());
  ANNULUS_KEEP_ROLLED
  for (int32_t round = 0;; ++round) {
    const int64_t index = IndexOfRound(round, block, blocks);
    if (index >= p.order.Units()) break;
    const auto place = static_cast<int32_t>(index);
    const KeyCount count = CountKeyTiles(p.kv_segments, p.mask, AttendUnit(p, place).queries);
    if (count.partial + count.full > 0) visit(place, count);
  }
}

template <class Half, int kDim, class Thread>
ANNULUS_KERNEL_INLINE void AttendHopper(Thread& t, const HopperAttendParams& p) {
  using Shape = AttendShape<kDim>;
  InitAttendBarriers<kDim>(t);
  const int warpgroup = t.warpgroup();
  if (warpgroup == 0) {
    t.template DecreaseRegisters<Shape::kProducerRegisters>();
    if (t.thread() >= 32 || !t.ElectOne()) return;
    t.PrefetchMap(p.q);
    t.PrefetchMap(p.k);
    t.PrefetchMap(p.v);
    AttendLoader<kDim, Thread> loader(t, p);
    ForEachUnit(t, p,
                [&](int32_t index, const KeyCount&) { loader.LoadUnit(AttendUnit(p, index)); });
  } else {
    t.template IncreaseRegisters<Shape::kConsumerRegisters>();
    AttendConsumer<Half, kDim, Thread> consumer(t, p, warpgroup - 1);
    consumer.Start();
    ForEachUnit(t, p,
                [&](int32_t index, const KeyCount& count) { consumer.Compute(index, count); });
    consumer.Finish();
  }
}

}  // namespace annulus::kernels::cuda
