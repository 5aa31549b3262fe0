// SPDX-License-Identifier: Apache-2.0
// What Highway 1.0.3 cannot say: AVX512_BF16, by intrinsics, with a dispatch of its own.
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define ANNULUS_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#endif

namespace annulus::kernels::cpu {
namespace {

#if defined(__x86_64__)

constexpr int kRows = kNativePairRows;
constexpr int64_t kPanel = kNativeBf16Panel;
constexpr int64_t kLanes = 16;

#define ANNULUS_BF16_INLINE ANNULUS_BF16_TARGET __attribute__((always_inline)) inline

struct Sums {
  __m512 c[kRows][2];
};

ANNULUS_BF16_INLINE __m512bh Words(const float* from) { return (__m512bh)_mm512_load_ps(from); }

// sums[m][n] += a[m * kRowStride + k * kWordStride] . b[k * panel width + n] over k.
template <int64_t kRowStride, int64_t kWordStride>
ANNULUS_BF16_INLINE void Accumulate(const float* a, const float* b, int64_t words, Sums& sums) {
  for (int64_t k = 0; k < words; ++k) {
    const __m512bh b0 = Words(b);
    const __m512bh b1 = Words(b + kLanes);
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
      const __m512bh word = (__m512bh)_mm512_set1_ps(a[m * kRowStride]);
      sums.c[m][0] = _mm512_dpbf16_ps(sums.c[m][0], word, b0);
      sums.c[m][1] = _mm512_dpbf16_ps(sums.c[m][1], word, b1);
    }
    a += kWordStride;
    b += kPanel;
  }
}

ANNULUS_BF16_INLINE void SetZero(Sums& sums) {
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    sums.c[m][0] = _mm512_setzero_ps();
    sums.c[m][1] = _mm512_setzero_ps();
  }
}

// sums[m] += factor[m] * rows of `from`; no factor: ones.
ANNULUS_BF16_INLINE void AddScaled(const float* factor, const float* from, int64_t stride,
                                   Sums& sums) {
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    const __m512 f = _mm512_set1_ps(factor == nullptr ? 1.0f : factor[m]);
    sums.c[m][0] = _mm512_fmadd_ps(f, _mm512_load_ps(from + m * stride), sums.c[m][0]);
    sums.c[m][1] = _mm512_fmadd_ps(f, _mm512_load_ps(from + m * stride + kLanes), sums.c[m][1]);
  }
}

ANNULUS_BF16_INLINE void Store(const Sums& sums, float* to, int64_t to_stride) {
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    _mm512_store_ps(to + m * to_stride, sums.c[m][0]);
    _mm512_store_ps(to + m * to_stride + kLanes, sums.c[m][1]);
  }
}

ANNULUS_BF16_TARGET void StripTimesColumns(const float* strip, const float* columns, int64_t words,
                                           int64_t begin, int64_t end, float* scores) {
  for (int64_t j = begin; j < end; j += kPanel) {
    Sums sums;
    SetZero(sums);
    Accumulate<1, kRows>(strip, columns + j * words, words, sums);
    Store(sums, scores + j, kKeyTile);
  }
}

ANNULUS_BF16_TARGET void RowsTimesPanel(const float* a, const float* panel, int64_t words,
                                        const float* factor, float* to, int64_t to_stride) {
  Sums sums;
  SetZero(sums);
  for (int64_t k = 0; k < words; k += kNativePieceWords) {
    Accumulate<kKeyTile, 1>(a, panel, kNativePieceWords, sums);
    Accumulate<kKeyTile, 1>(a + kNativePieceWords, panel, kNativePieceWords, sums);
    a += kPanel;
    panel += kNativePieceWords * kPanel;
  }
  AddScaled(factor, to, to_stride, sums);
  Store(sums, to, to_stride);
}

ANNULUS_BF16_TARGET void SumOverQueries(const float* a, const float* panel, int64_t words,
                                        float* to, int64_t to_stride) {
  Sums sums;
  SetZero(sums);
  Accumulate<1, kKeyTile>(a, panel, words, sums);
  Accumulate<1, kKeyTile>(a + kSecondOfColumns, panel, words, sums);
  AddScaled(nullptr, to, to_stride, sums);
  Store(sums, to, to_stride);
}

void Nothing() {}

constexpr Bf16Products kNative = {Nothing, Nothing, StripTimesColumns, RowsTimesPanel,
                                  SumOverQueries};

bool ProcessorHasBf16() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16");
}

#endif  // __x86_64__

}  // namespace

const Bf16Products* NativeBf16Pairs() {
#if defined(__x86_64__)
  static const bool has = ProcessorHasBf16();
  return has ? &kNative : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace annulus::kernels::cpu
