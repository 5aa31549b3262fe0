// SPDX-License-Identifier: Apache-2.0
#pragma once

// The row operations between cuDNN's tensors and the float32 accumulators of a call: one warp a row
// of a head, as in portable/row_ops.h. The per-row numbers of cuDNN lie [batch, heads, rows].

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/portable/row_ops.h"
#include "kernels/softmax_state.h"

namespace annulus::kernels::cuda {

ANNULUS_KERNEL_INLINE int64_t HeadMajor(const annulusTensor& tensor, int64_t batch, int64_t row,
                                        int64_t head) {
  return (batch * tensor.heads + head) * tensor.rows + row;
}

// (a, a_stat) <- merge((a, a_stat), (b, head_stats)).
template <class Thread>
ANNULUS_KERNEL_INLINE void MergePartial(Thread& t, const PartialParams& p) {
  VisitRow(t, p.a, [&](int64_t batch, int64_t row, int64_t head, int lane) {
    float* stat = &RowStatAt(p.a_stat, batch, row, head);
    const MergeWeights<float> weights =
        MergeLse(*stat, p.head_stats[HeadMajor(p.a, batch, row, head)]);
    t.SyncWarp();  // all have read the sum before one overwrites it
    float* a = FloatRow(p.a, batch, row, head);
    const void* b = RowPointer(p.b, batch, row, head);
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) {
      a[c] = MergeOutput(weights, a[c], LoadElement(b, p.b.dtype, c));
    }
    if (lane == 0) *stat = weights.lse;
  });
}

// Stands for the LSE of a row without a visible key: exp(score - this) is zero.
inline constexpr float kNoKeyLse = 1e30f;

// What cuDNN's backward wants for a = do, a_stat = lse and b_stat = delta: head_stats = lse, and
// b = an o with rowsum(do * o) = delta, of which cuDNN takes that sum and nothing else. The o of
// the forward is not at hand here; o = delta do / |do|^2 has the sum, and all its terms have the
// sign of delta, so that rounding b costs less than rounding the true o would.
template <class Thread>
ANNULUS_KERNEL_INLINE void BackwardInputs(Thread& t, const PartialParams& p) {
  VisitRow(t, p.a, [&](int64_t batch, int64_t row, int64_t head, int lane) {
    const void* d_o = RowPointer(p.a, batch, row, head);
    float largest = 0.0f;
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) {
      const float value = std::fabs(LoadElement(d_o, p.a.dtype, c));
      largest = value > largest ? value : largest;
    }
    for (int m = 1; m < kWarp; m *= 2) {
      const float other = t.ShuffleXor(largest, m);
      largest = other > largest ? other : largest;
    }
    const float unit = largest > 0.0f ? largest : 1.0f;  // squares neither overflow nor vanish
    float square = 0.0f;
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) {
      const float value = LoadElement(d_o, p.a.dtype, c) / unit;
      square += value * value;
    }
    square = LaneSum(t, square, kWarp);
    const float lse = RowStatAt(p.a_stat, batch, row, head);
    const bool any_key = lse != -std::numeric_limits<float>::infinity();
    const float factor =
        any_key && largest > 0.0f ? RowStatAt(p.b_stat, batch, row, head) / unit / square : 0.0f;
    void* b = const_cast<void*>(RowPointer(p.b, batch, row, head));
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) {
      StoreElement(factor * (LoadElement(d_o, p.a.dtype, c) / unit), b, p.b.dtype, c);
    }
    if (lane == 0) p.head_stats[HeadMajor(p.a, batch, row, head)] = any_key ? lse : kNoKeyLse;
  });
}

// a += b.
template <class Thread>
ANNULUS_KERNEL_INLINE void AddRows(Thread& t, const PartialParams& p) {
  VisitRow(t, p.a, [&](int64_t batch, int64_t row, int64_t head, int lane) {
    float* a = FloatRow(p.a, batch, row, head);
    const void* b = RowPointer(p.b, batch, row, head);
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) a[c] += LoadElement(b, p.b.dtype, c);
  });
}

}  // namespace annulus::kernels::cuda
