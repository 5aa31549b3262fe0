// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the native bfloat16 products (bf16_pairs.cc, bf16_tiles.cc) have in common, by intrinsics.

#if defined(__x86_64__)

#include <immintrin.h>

#include <cmath>

// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace annulus::kernels::cpu {

// value - its bfloat16 `rounded`; zero where that is infinite or NaN.
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"), always_inline)) inline __m512
RestOfBf16(__m512 value, __m256i rounded) {
  const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
  const __mmask16 finite =
      _mm512_cmp_ps_mask(_mm512_abs_ps(first), _mm512_set1_ps(INFINITY), _CMP_LT_OQ);
  return _mm512_maskz_sub_ps(finite, value, first);
}

}  // namespace annulus::kernels::cpu

#endif  // __x86_64__
