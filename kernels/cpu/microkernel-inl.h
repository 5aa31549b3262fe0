// SPDX-License-Identifier: Apache-2.0

// The register-tiled matrix product that everything else is built of. Included once per
// instruction set by a dispatched source file (Highway's foreach_target).

#if defined(ANNULUS_KERNELS_CPU_MICROKERNEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_MICROKERNEL_INL_H_
#undef ANNULUS_KERNELS_CPU_MICROKERNEL_INL_H_
#else
#define ANNULUS_KERNELS_CPU_MICROKERNEL_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/cpu/tile.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

inline constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(FloatTag()));
// Two vectors wide; as many rows as leave registers for two B vectors and one broadcast:
// 6 * 2 + 3 of 16 registers, 12 * 2 + 3 of 32. Plain C++ has no vector registers to run out of and
// takes 12, so that both shapes are tested on machines without AVX-512.
inline constexpr int kVectors = 2;
inline constexpr int64_t kPanelWidth = kVectors * kLanes;
inline constexpr int kMicroRows = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_SCALAR ? 12 : 6;

static_assert(kPanelWidth <= kPanelWidthMax);
static_assert(kQueryBlock % kPanelWidth == 0 && kKeyTile % kPanelWidth == 0);
static_assert(kQueryBlock % kMicroRows == 0 && kKeyTile % kMicroRows == 0);

HWY_INLINE int64_t PanelFloor(int64_t column) { return column / kPanelWidth * kPanelWidth; }
HWY_INLINE int64_t PanelCeil(int64_t column) { return PanelFloor(column + kPanelWidth - 1); }

// A block of a product, in registers: kRows rows by kWide vectors, a panel's or fewer.
template <int kRows, int kWide = kVectors>
struct Accumulator {
  FloatVec c[kRows][kWide];
};

// With 32 vector registers the operands that stream by from the second cache are what
// multiplication waits for: they are fetched this many steps ahead.
inline constexpr bool kFetchesAhead = kLanes == 16;
inline constexpr int64_t kPanelStepsAhead = 24;
inline constexpr int64_t kColumnStepsAhead = 8;

// acc[m][n] += sum over k < depth of a[m * kRowStride + k * kDepthStride] * b[k * kPanelWidth + n].
// The strides are compile-time so that addresses fold into the instructions.
template <int64_t kRowStride, int64_t kDepthStride, int kRows, int kWide>
HWY_INLINE void MultiplyAdd(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int64_t depth,
                            Accumulator<kRows, kWide>& acc) {
  const FloatTag d;
  for (int64_t k = 0; k < depth; ++k) {
    FloatVec vectors[kWide];
#pragma GCC unroll 2
    for (int n = 0; n < kWide; ++n) {
      vectors[n] = hn::Load(d, b + n * kLanes);
      if constexpr (kFetchesAhead) hwy::Prefetch(b + kPanelStepsAhead * kPanelWidth + n * kLanes);
    }
    // Of columns, a step is a line or two far from the last one.
    if constexpr (kFetchesAhead && kRowStride == 1 && kDepthStride != kRows) {
      hwy::Prefetch(a + kColumnStepsAhead * kDepthStride + kRows);
    }
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
      const FloatVec broadcast = hn::Set(d, a[m * kRowStride]);
#pragma GCC unroll 2
      for (int n = 0; n < kWide; ++n) {
        acc.c[m][n] = hn::MulAdd(broadcast, vectors[n], acc.c[m][n]);
      }
    }
    a += kDepthStride;
    b += kPanelWidth;
  }
}

// acc = the same sum, of at least one step. Its first products start it: multiplying and adding to
// zeros takes longer.
template <int64_t kRowStride, int64_t kDepthStride, int kRows, int kWide>
HWY_INLINE void Multiply(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int64_t depth,
                         Accumulator<kRows, kWide>& acc) {
  const FloatTag d;
  FloatVec vectors[kWide];
#pragma GCC unroll 2
  for (int n = 0; n < kWide; ++n) vectors[n] = hn::Load(d, b + n * kLanes);
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    const FloatVec broadcast = hn::Set(d, a[m * kRowStride]);
#pragma GCC unroll 2
    for (int n = 0; n < kWide; ++n) acc.c[m][n] = hn::Mul(broadcast, vectors[n]);
  }
  MultiplyAdd<kRowStride, kDepthStride>(a + kDepthStride, b + kPanelWidth, depth - 1, acc);
}

// acc[m] = factor[m] * rows of `from`, `row_stride` floats apart.
template <int kRows, int kWide>
HWY_INLINE void LoadScaled(const float* HWY_RESTRICT from, int64_t row_stride,
                           const float* HWY_RESTRICT factor, Accumulator<kRows, kWide>& acc) {
  const FloatTag d;
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    const FloatVec f = hn::Set(d, factor[m]);
#pragma GCC unroll 2
    for (int n = 0; n < kWide; ++n) {
      acc.c[m][n] = hn::Mul(f, hn::Load(d, from + m * row_stride + n * kLanes));
    }
  }
}

// acc[m] += rows of `from`, `row_stride` floats apart.
template <int kRows, int kWide>
HWY_INLINE void AddRows(const float* HWY_RESTRICT from, int64_t row_stride,
                        Accumulator<kRows, kWide>& acc) {
  const FloatTag d;
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < kWide; ++n) {
      acc.c[m][n] = hn::Add(acc.c[m][n], hn::Load(d, from + m * row_stride + n * kLanes));
    }
  }
}

template <int kRows, int kWide>
HWY_INLINE void StoreRows(const Accumulator<kRows, kWide>& acc, float* HWY_RESTRICT to,
                          int64_t row_stride) {
  const FloatTag d;
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < kWide; ++n) hn::Store(acc.c[m][n], d, to + m * row_stride + n * kLanes);
  }
}

// scores[m][j] for j in [begin, end) of one strip of x and the columns of y: x . y^T.
// begin and end are multiples of kPanelWidth; rows of `scores` are kKeyTile apart.
HWY_INLINE void StripTimesColumns(const float* HWY_RESTRICT strip,
                                  const float* HWY_RESTRICT columns, int64_t head_dim,
                                  int64_t begin, int64_t end, float* HWY_RESTRICT scores) {
  for (int64_t j = begin; j < end; j += kPanelWidth) {
    Accumulator<kMicroRows> acc;
    Multiply<1, kMicroRows>(strip, columns + j * head_dim, head_dim, acc);
    StoreRows(acc, scores + j, kKeyTile);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
