// SPDX-License-Identifier: Apache-2.0

// Words of bfloat16 (bf16_products.h) out of vectors of float32, and back. Included once per
// instruction set.

#if defined(ANNULUS_KERNELS_CPU_BF16_WORDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_BF16_WORDS_INL_H_
#undef ANNULUS_KERNELS_CPU_BF16_WORDS_INL_H_
#else
#define ANNULUS_KERNELS_CPU_BF16_WORDS_INL_H_
#endif

#include <bit>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/numeric.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// x to the nearest bfloat16, as a float; what lies in the middle goes away from zero. NaN stays NaN
// but for some whose bits run over.
HWY_INLINE FloatVec RoundToBf16(FloatVec x) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const auto bits = hn::Add(hn::BitCast(du, x), hn::Set(du, 0x8000u));
  return hn::BitCast(d, hn::And(bits, hn::Set(du, 0xffff0000u)));
}

// The words of (low[i], high[i]), both of them bfloat16.
HWY_INLINE FloatVec WordsOfRounded(FloatVec low, FloatVec high) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  return hn::BitCast(d, hn::Or(hn::ShiftRight<16>(hn::BitCast(du, low)), hn::BitCast(du, high)));
}

// The words of (low[i], high[i]) in kPieces pieces, `stride` floats apart. Infinities become NaN.
// NaN stays NaN in the sum of three pieces, for two see NaNUnlessFinite; but some NaN spoil their
// neighbour in the word, so that where it is another row's, they pass through NaNUnlessFinite.
template <int kPieces>
HWY_INLINE void StorePieces(FloatVec low, FloatVec high, int64_t stride, float* to) {
  const FloatTag d;
#pragma GCC unroll 3
  for (int piece = 0; piece < kPieces; ++piece) {
    // What a float32 leaves in the third is a bfloat16, unless it is a NaN of many bits.
    const FloatVec first_low = piece == 2 ? low : RoundToBf16(low);
    const FloatVec first_high = piece == 2 ? high : RoundToBf16(high);
    hn::Store(WordsOfRounded(first_low, first_high), d, to + piece * stride);
    low = hn::Sub(low, first_low);
    high = hn::Sub(high, first_high);
  }
}

// x, but one plain NaN for infinities and every NaN: no bits run over.
HWY_INLINE FloatVec NaNUnlessFinite(FloatVec x) {
  const FloatTag d;
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, std::numeric_limits<float>::infinity())), x,
                        hn::Set(d, std::numeric_limits<float>::quiet_NaN()));
}

HWY_INLINE float WordOf(uint16_t low, uint16_t high) {
  return std::bit_cast<float>(low | static_cast<uint32_t>(high) << 16);
}
HWY_INLINE uint16_t BitsOfHalf(float word, int64_t half) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(word) >> (16 * half));
}
HWY_INLINE float HalfOf(float word, int64_t half) { return Bf16ToFloat(BitsOfHalf(word, half)); }

// Half a word, and that of its other pieces, `stride` floats apart each.
HWY_INLINE float SumOfPieces(const float* word, int64_t stride, int pieces, int64_t half) {
  float sum = 0.0f;
  for (int piece = 0; piece < pieces; ++piece) sum += HalfOf(word[piece * stride], half);
  return sum;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
