// SPDX-License-Identifier: Apache-2.0
#pragma once

// The online softmax as a monoid, one definition for host and device.
//
// The attention of a query over a set of keys is carried as a state; the states of two disjoint
// sets merge into the state of their union, in any grouping (Milakov & Gimelshein, arXiv
// 1805.02867; Ring Attention, arXiv 2310.01889). Two forms of the same thing:
//   SoftmaxState   (max, sum, unnormalised o)   while a kernel walks over keys
//   (o, lse)       o = sum-normalised, lse = max + ln(sum)   between kernels and between ranks
// The identity is (-inf, 0, 0) and (0, -inf). Merging with it changes nothing and is never NaN.
// A NaN in a state stays in it.

#include <cmath>
#include <limits>

#include "kernels/host_device.h"

namespace annulus::kernels {

// Between the units of exp and those of exp2.
inline constexpr double kLog2E = 1.4426950408889634;
inline constexpr double kLn2 = 0.6931471805599453;

// What each side's o is multiplied with to merge two (o, lse) states, and the merged lse.
template <typename T>
struct MergeWeights {
  T a;
  T b;
  T lse;
};

// lse = max(a,b) + log1p(exp(-|a-b|)); weights exp(a-lse), exp(b-lse). Natural logarithm.
template <typename T>
ANNULUS_HOST_DEVICE inline MergeWeights<T> MergeLse(T a, T b) {
  const T minus_infinity = -std::numeric_limits<T>::infinity();
  if (b == minus_infinity) return {T(1), T(0), a};
  if (a == minus_infinity) return {T(0), T(1), b};
  const T lse = (a > b ? a : b) + std::log1p(std::exp(-std::fabs(a - b)));
  return {std::exp(a - lse), std::exp(b - lse), lse};
}

// Merged value of one element of o. A side of weight zero does not count, even when it is NaN:
// the identity's o is never looked at.
template <typename T>
ANNULUS_HOST_DEVICE inline T MergeOutput(const MergeWeights<T>& weights, T o_a, T o_b) {
  if (weights.b == T(0)) return o_a * weights.a;
  if (weights.a == T(0)) return o_b * weights.b;
  return o_a * weights.a + o_b * weights.b;
}

// Running maximum and sum of exponentials relative to it, in any base the caller keeps to
// (`T exp(T)` is passed in: exp for natural units, exp2 for scores scaled by log2 e).
template <typename T>
struct SoftmaxState {
  T max = -std::numeric_limits<T>::infinity();
  T sum = T(0);
};

// What to subtract from a score before exponentiating. -inf would turn a score of -inf into NaN.
template <typename T>
ANNULUS_HOST_DEVICE inline T SafeMax(T max) {
  return max == -std::numeric_limits<T>::infinity() ? T(0) : max;
}

// Raises the state's maximum to cover `block_max`; returns the factor that the sum and the
// unnormalised output of the keys seen so far must be multiplied with. The sum already is.
template <typename T, typename Exp>
ANNULUS_HOST_DEVICE inline T RaiseMax(SoftmaxState<T>& state, T block_max, Exp exp_function) {
  const T before = state.max;
  state.max = before < block_max ? block_max : before;
  const T factor = before == state.max ? T(1) : exp_function(before - SafeMax(state.max));
  state.sum *= factor;
  return factor;
}

}  // namespace annulus::kernels
