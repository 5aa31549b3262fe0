// SPDX-License-Identifier: Apache-2.0

// Packing: rows of any dtype, gathered from a tensor, into the forms that tile.h names. Included
// once per instruction set, because the forms depend on the panel width.

#if defined(ANNULUS_KERNELS_CPU_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_PACK_INL_H_
#undef ANNULUS_KERNELS_CPU_PACK_INL_H_
#else
#define ANNULUS_KERNELS_CPU_PACK_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/tile.h"
#include "kernels/tensor_view.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// out[row][d] = row `rows[row]` of the head as floats times `factor`, zero rows up to `padded`.
// Returns whether any loaded value was infinite or NaN. Rows of `out` are head_dim apart.
HWY_INLINE bool LoadRows(const HeadRows& source, float factor, int64_t padded, float* out) {
  const hn::CappedTag<float, 8> d;
  auto poison = hn::Zero(d);
  const auto f = hn::Set(d, factor);
  for (int64_t i = 0; i < source.count; ++i) {
    float* row = out + i * source.head_dim;
    LoadAsFloat(source.Row(i), source.dtype, source.head_dim, row);
    for (int64_t c = 0; c < source.head_dim; c += static_cast<int64_t>(hn::Lanes(d))) {
      const auto value = hn::LoadU(d, row + c);
      poison = hn::MulAdd(value, hn::Zero(d), poison);  // finite * 0 is 0, the rest is NaN
      hn::StoreU(hn::Mul(value, f), d, row + c);
    }
  }
  std::fill(out + source.count * source.head_dim, out + padded * source.head_dim, 0.0f);
  return !hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)));
}

// Groups of kWidth rows, each group transposed to [head_dim][kWidth]: "strips" and "columns".
template <int64_t kWidth>
HWY_INLINE void TransposeGroups(const float* HWY_RESTRICT rows, int64_t row_count, int64_t head_dim,
                                float* HWY_RESTRICT out) {
  for (int64_t group = 0; group < row_count; group += kWidth) {
    const float* from = rows + group * head_dim;
    float* to = out + group * head_dim;
    for (int64_t c = 0; c < head_dim; ++c) {
      for (int64_t r = 0; r < kWidth; ++r) to[c * kWidth + r] = from[r * head_dim + c];
    }
  }
}

// "panels": kPanelWidth columns of all rows, contiguous; columns past head_dim are zero. Panels are
// `block` rows apart, of which the first `row_count` are written.
HWY_INLINE void CopyPanels(const float* HWY_RESTRICT rows, int64_t row_count, int64_t block,
                           int64_t head_dim, float* HWY_RESTRICT out) {
  for (int64_t c = 0; c < head_dim; c += kPanelWidth) {
    const int64_t width = std::min(kPanelWidth, head_dim - c);
    for (int64_t r = 0; r < row_count; ++r) {
      float* to = out + c * block + r * kPanelWidth;
      std::copy(rows + r * head_dim + c, rows + r * head_dim + c + width, to);
      std::fill(to + width, to + kPanelWidth, 0.0f);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
