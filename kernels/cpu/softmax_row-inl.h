// SPDX-License-Identifier: Apache-2.0

// One row of scores against the online softmax. Scores times a positive factor are in units of
// log 2. Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_SOFTMAX_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_SOFTMAX_ROW_INL_H_
#undef ANNULUS_KERNELS_CPU_SOFTMAX_ROW_INL_H_
#else
#define ANNULUS_KERNELS_CPU_SOFTMAX_ROW_INL_H_
#endif

#include <cmath>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/cpu/arithmetic-inl.h"
#include "kernels/cpu/exp2-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/row_map.h"
#include "kernels/softmax_state.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The state whose natural-log LSE is `lse`, not -inf: max = lse, sum = 1, except that what max
// loses by rounding goes into sum, or it would drift from merge to merge.
HWY_INLINE SoftmaxState<float> StateOfLse(float lse) {
  const double max = lse * kLog2E;
  const float rounded = static_cast<float>(max);
  return {rounded, static_cast<float>(std::exp2(max - rounded))};
}

HWY_INLINE float LseOfState(const SoftmaxState<float>& state) {
  return static_cast<float>(state.max * kLn2 + std::log(static_cast<double>(state.sum)));
}

// Turns the scores of columns [begin, end), whole panels, into weights 2^(factor * score - max) in
// place, exactly zero outside `visible`, and updates the row's state. Returns the factor for its
// output.
template <bool kMasked>
HWY_INLINE float SoftmaxRow(float* HWY_RESTRICT row, int64_t begin, int64_t end, IndexRange visible,
                            float score_factor, SoftmaxState<float>& state) {
  const FloatTag d;
  const FloatVec minus_infinity = hn::Set(d, -std::numeric_limits<float>::infinity());
  const FloatVec first = hn::Set(d, static_cast<float>(visible.begin));
  const FloatVec last = hn::Set(d, static_cast<float>(visible.end));
  FloatVec max = minus_infinity;
  for (int64_t j = begin; j < end; j += kLanes) {
    FloatVec score = hn::Load(d, row + j);
    if constexpr (kMasked) {
      const FloatVec index = hn::Iota(d, static_cast<float>(j));
      score =
          hn::IfThenElse(hn::And(hn::Ge(index, first), hn::Lt(index, last)), score, minus_infinity);
      hn::Store(score, d, row + j);
    }
    max = hn::Max(score, max);
  }
  const float rescale = RaiseMax(state, score_factor * hn::GetLane(hn::MaxOfLanes(d, max)),
                                 [](float x) { return std::exp2(x); });
  const FloatVec factor = hn::Set(d, score_factor);
  const FloatVec shift = hn::Set(d, SafeMax(state.max));
  FloatVec sum = hn::Zero(d);
  for (int64_t j = begin; j < end; j += kLanes) {
    const FloatVec weight = Exp2(d, hn::MulSub(hn::Load(d, row + j), factor, shift));
    hn::Store(weight, d, row + j);
    sum = hn::Add(sum, weight);
  }
  state.sum += hn::GetLane(hn::SumOfLanes(d, sum));
  return rescale;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
