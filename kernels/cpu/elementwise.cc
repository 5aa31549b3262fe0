// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/tile.h"
#include "kernels/softmax_state.h"
#include "kernels/tensor_view.h"

namespace annulus::kernels::cpu {
namespace {

// Calls visit(batch, row, head) for every row of every head, in memory order.
template <typename Visit>
void ForEachRow(const annulusTensor& tensor, Visit visit) {
  for (int64_t batch = 0; batch < tensor.batch; ++batch) {
    for (int64_t row = 0; row < tensor.rows; ++row) {
      for (int64_t head = 0; head < tensor.heads; ++head) visit(batch, row, head);
    }
  }
}

}  // namespace

void Reset(const annulusTensor& o, const annulusRowStat& lse) {
  ForEachRow(o, [&](int64_t batch, int64_t row, int64_t head) {
    float* out = FloatRow(o, batch, row, head);
    std::fill(out, out + o.head_dim, 0.0f);
    RowStatAt(lse, batch, row, head) = -std::numeric_limits<float>::infinity();
  });
}

void RowDots(const annulusTensor& d_o, const annulusTensor& o, const annulusRowStat& delta) {
  float a[kHeadDimMax];
  float b[kHeadDimMax];
  ForEachRow(o, [&](int64_t batch, int64_t row, int64_t head) {
    LoadAsFloat(RowPointer(d_o, batch, row, head), d_o.dtype, o.head_dim, a);
    LoadAsFloat(RowPointer(o, batch, row, head), o.dtype, o.head_dim, b);
    double sum = 0.0;
    for (int64_t c = 0; c < o.head_dim; ++c) sum += static_cast<double>(a[c]) * b[c];
    RowStatAt(delta, batch, row, head) = static_cast<float>(sum);
  });
}

void Merge(const annulusTensor& o, const annulusRowStat& lse, const annulusTensor& o2,
           const annulusRowStat& lse2) {
  ForEachRow(o, [&](int64_t batch, int64_t row, int64_t head) {
    float& lse_a = RowStatAt(lse, batch, row, head);
    const MergeWeights<float> weights = MergeLse(lse_a, RowStatAt(lse2, batch, row, head));
    float* a = FloatRow(o, batch, row, head);
    const float* b = FloatRow(o2, batch, row, head);
    for (int64_t c = 0; c < o.head_dim; ++c) a[c] = MergeOutput(weights, a[c], b[c]);
    lse_a = weights.lse;
  });
}

void AddInto(float* dst, const void* src, annulusDtype src_dtype, int64_t count) {
  if (src_dtype == ANNULUS_F32) {
    const float* in = static_cast<const float*>(src);
    for (int64_t i = 0; i < count; ++i) dst[i] += in[i];
  } else {
    const uint16_t* in = static_cast<const uint16_t*>(src);
    for (int64_t i = 0; i < count; ++i) dst[i] += Bf16ToFloat(in[i]);
  }
}

void Convert(const annulusTensor& src, const annulusTensor& dst) {
  float row_values[kHeadDimMax];
  ForEachRow(src, [&](int64_t batch, int64_t row, int64_t head) {
    LoadAsFloat(RowPointer(src, batch, row, head), src.dtype, src.head_dim, row_values);
    StoreFromFloat(row_values, src.head_dim, dst.dtype,
                   const_cast<void*>(RowPointer(dst, batch, row, head)));
  });
}

}  // namespace annulus::kernels::cpu
