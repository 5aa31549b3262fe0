// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the native bfloat16 products (bf16_pairs.cc, bf16_tiles.cc) have in common, by intrinsics.

#if defined(__x86_64__)

#include <immintrin.h>

// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace annulus::kernels::cpu {

struct HalvesOfWords {
  __m512i low;
  __m512i high;
};

// The words of both low halves and of both high halves of 16 words each, `first` in the low half.
__attribute__((target("avx512f,avx512bw"), always_inline)) inline HalvesOfWords PairHalves(
    const float* first, const float* second) {
  constexpr __mmask32 kHighHalves = 0xaaaaaaaa;
  const __m512i a = _mm512_load_si512(first);
  const __m512i b = _mm512_load_si512(second);
  return {_mm512_mask_mov_epi16(a, kHighHalves, _mm512_slli_epi32(b, 16)),
          _mm512_mask_mov_epi16(_mm512_srli_epi32(a, 16), kHighHalves, b)};
}

}  // namespace annulus::kernels::cpu

#endif  // __x86_64__
