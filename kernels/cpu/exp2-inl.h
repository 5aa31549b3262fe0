// SPDX-License-Identifier: Apache-2.0

// Vector 2^x for softmax arguments. Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_EXP2_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_EXP2_INL_H_
#undef ANNULUS_KERNELS_CPU_EXP2_INL_H_
#else
#define ANNULUS_KERNELS_CPU_EXP2_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 1 + f (c1 + f (c2 + ...)) of the coefficients, the last one first.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V OnePlusPolynomial(D d, V f, const float (&coefficients)[5]) {
  V sum = hn::Set(d, coefficients[0]);
#pragma GCC unroll 4
  for (int i = 1; i < 5; ++i) sum = hn::MulAdd(sum, f, hn::Set(d, coefficients[i]));
  return hn::MulAdd(sum, f, hn::Set(d, 1.0f));
}

// 2^x for x < 127, within 2 ULP; exactly 1 at 0, exactly 0 below -126 where denormals are flushed,
// NaN for NaN.
//
// x = n + f with n an integer. 2^f = 1 + f q(f) with q of degree 4 fitted for the least largest
// relative error: 9.2e-8 on [-1/2, 1/2], 8.3e-8 on [0, 1].
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp2(D d, V x) {
#if HWY_TARGET == HWY_AVX3
  // Instructions for both ends, which Highway 1.0.3 does not have: x - floor(x), which is 0 for an
  // infinity, and p 2^floor(x).
  const V f{_mm512_reduce_ps(x.raw, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
  const V fraction = OnePlusPolynomial(
      d, f, {0.00186713005f, 0.00901703071f, 0.0557999127f, 0.240164444f, 0.693151295f});
  return V{_mm512_scalef_ps(fraction.raw, x.raw)};
#else
  // Adding 1.5 * 2^23 leaves n, the nearest integer, in the low bits of the sum, and the added 127
  // makes them the biased exponent of 2^n. The product with 2^n, rather than an addition to the
  // exponent bits, keeps a NaN a NaN.
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, 12582912.0f + 127.0f);
  const V shifted = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(shifted, magic));
  const V fraction =
      OnePlusPolynomial(d, f,
                        {0.0013264738737193732f, 0.009671516667906629f, 0.05550733752791357f,
                         0.24022242024253387f, 0.6931469775691219f});
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, shifted)));
  const V result = hn::Mul(fraction, power);
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), result);
#endif
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
