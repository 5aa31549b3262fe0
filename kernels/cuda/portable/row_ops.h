// SPDX-License-Identifier: Apache-2.0
#pragma once

// The row-wise operations: one warp a row of a head, kRowsABlock rows a block.

#include <cstdint>
#include <limits>

#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/portable/block_tile.h"
#include "kernels/softmax_state.h"

namespace annulus::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kRowsABlock = kBlockThreads / kWarp;
inline constexpr int64_t kElementsABlock = 8 * kBlockThreads;  // of Accumulate

// Calls visit(batch, row, head, lane) for this warp's row, if there is one.
template <class Thread, class Visit>
ANNULUS_KERNEL_INLINE void VisitRow(Thread& t, const annulusTensor& tensor, Visit visit) {
  const int64_t index = t.block() * kRowsABlock + t.thread() / kWarp;
  const int64_t rows = tensor.rows * tensor.heads;
  if (index >= tensor.batch * rows) return;
  visit(index / rows, index % rows / tensor.heads, index % tensor.heads, t.thread() % kWarp);
}

// a = 0, a_stat = -inf.
template <class Thread>
ANNULUS_KERNEL_INLINE void ResetRows(Thread& t, const RowParams& p) {
  VisitRow(t, p.a, [&](int64_t batch, int64_t row, int64_t head, int lane) {
    float* a = FloatRow(p.a, batch, row, head);
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) a[c] = 0.0f;
    if (lane == 0) {
      RowStatAt(p.a_stat, batch, row, head) = -std::numeric_limits<float>::infinity();
    }
  });
}

// a_stat = rowsum(a * b).
template <class Thread>
ANNULUS_KERNEL_INLINE void RowDots(Thread& t, const RowParams& p) {
  VisitRow(t, p.a, [&](int64_t batch, int64_t row, int64_t head, int lane) {
    const void* a = RowPointer(p.a, batch, row, head);
    const void* b = RowPointer(p.b, batch, row, head);
    float sum = 0.0f;
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) {
      sum += LoadElement(a, p.a.dtype, c) * LoadElement(b, p.b.dtype, c);
    }
    sum = LaneSum(t, sum, kWarp);
    if (lane == 0) RowStatAt(p.a_stat, batch, row, head) = sum;
  });
}

// (a, a_stat) <- merge((a, a_stat), (b, b_stat)).
template <class Thread>
ANNULUS_KERNEL_INLINE void MergeRows(Thread& t, const RowParams& p) {
  VisitRow(t, p.a, [&](int64_t batch, int64_t row, int64_t head, int lane) {
    float* stat = &RowStatAt(p.a_stat, batch, row, head);
    const MergeWeights<float> weights = MergeLse(*stat, RowStatAt(p.b_stat, batch, row, head));
    t.SyncWarp();  // all have read the sum before one overwrites it
    float* a = FloatRow(p.a, batch, row, head);
    const float* b = FloatRow(p.b, batch, row, head);
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) a[c] = MergeOutput(weights, a[c], b[c]);
    if (lane == 0) *stat = weights.lse;
  });
}

// b = a rounded to b's dtype.
template <class Thread>
ANNULUS_KERNEL_INLINE void ConvertRows(Thread& t, const RowParams& p) {
  VisitRow(t, p.a, [&](int64_t batch, int64_t row, int64_t head, int lane) {
    const void* from = RowPointer(p.a, batch, row, head);
    void* to = const_cast<void*>(RowPointer(p.b, batch, row, head));
    for (int64_t c = lane; c < p.a.head_dim; c += kWarp) {
      StoreElement(LoadElement(from, p.a.dtype, c), to, p.b.dtype, c);
    }
  });
}

template <class Thread>
ANNULUS_KERNEL_INLINE void Accumulate(Thread& t, const AccumulateParams& p) {
  const int64_t first = t.block() * kElementsABlock;
  for (int64_t i = first + t.thread(); i < first + kElementsABlock && i < p.count;
       i += kBlockThreads) {
    p.dst[i] += LoadElement(p.src, p.src_dtype, i);
  }
}

}  // namespace annulus::kernels::cuda
