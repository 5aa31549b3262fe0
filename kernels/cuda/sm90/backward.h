// SPDX-License-Identifier: Apache-2.0
#pragma once

// The backward pass for compute capability 9.0, bf16 and f16, head sizes up to 128: a persistent
// block with one warpgroup that loads (backward_load.h, backward_note.h) and adds up dq
// (backward_add.h), and two that compute (backward_compute.h). unit_order.h says what each block
// works on.

#include <cstdint>

#include "kernels/cuda/sm90/backward_add.h"
#include "kernels/cuda/sm90/backward_compute.h"
#include "kernels/cuda/sm90/backward_load.h"
#include "kernels/cuda/sm90/backward_note.h"
#include "kernels/cuda/sm90/backward_shape.h"

namespace annulus::kernels::cuda {

template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void InitBackwardBarriers(Thread& t) {
  using Shape = BackwardShape<kDim>;
  constexpr int kReaders = Shape::kConsumerThreads / 32;  // warps
  if (t.thread() == 0) {
    const BackwardPlaces<kDim> shared{t.shared()};
    t.BarrierInit(shared.KeysFull(), 1);
    t.BarrierInit(shared.KeysEmpty(), kReaders);
    for (uint32_t stage = 0; stage < Shape::kStages; ++stage) {
      t.BarrierInit(shared.QueriesFull(stage), 32 + 1);
      t.BarrierInit(shared.QueriesEmpty(stage), kReaders + 1);
      t.BarrierInit(shared.HeaderFull(stage), 1);
    }
    t.FenceBarrierInit();
  }
  t.Sync();
}

template <class Half, int kDim, class Thread>
ANNULUS_KERNEL_INLINE void AttendBackwardHopper(Thread& t, const HopperBackwardParams& p) {
  using Shape = BackwardShape<kDim>;
  InitBackwardBarriers<kDim>(t);
  const int warpgroup = t.warpgroup();
  if (warpgroup == 0) {
    t.template DecreaseRegisters<Shape::kProducerRegisters>();
    const int warp = t.Forgotten(t.thread() / 32);
    if (warp == 0) {
      if (t.ElectOne()) BackwardLoader<kDim, Thread>(t, p).Load();
    } else if (warp == 1) {
      BackwardNoter<kDim, Thread>(t, p).Note();
    } else if (warp == 2) {
      BackwardAdder<kDim, Thread>(t, p).Add();
    }
  } else {
    t.template IncreaseRegisters<Shape::kConsumerRegisters>();
    BackwardConsumer<Half, kDim, Thread>(t, p, warpgroup - 1).Compute();
  }
}

}  // namespace annulus::kernels::cuda
