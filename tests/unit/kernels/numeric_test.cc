// SPDX-License-Identifier: Apache-2.0
#include "kernels/numeric.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/reference/error_metrics.h"
#include "kernels/softmax_state.h"

namespace annulus::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// The value of a 16-bit pattern by the textbook: sign, exponent, mantissa.
double ValueOf(uint16_t bits, int mantissa_bits, int bias) {
  const int exponent_bits = 15 - mantissa_bits;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const double mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return mantissa == 0 ? sign * kInfinity : kNaN;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(1.0 + std::ldexp(mantissa, -mantissa_bits), exponent - bias);
}

TEST(Numeric, EveryPatternDecodesAndReturns) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const uint16_t pattern = static_cast<uint16_t>(bits);
    const double bf16 = ValueOf(pattern, 7, 127);
    const double f16 = ValueOf(pattern, 10, 15);
    if (std::isnan(bf16)) {
      EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(Bf16ToFloat(pattern)))));
    } else {
      ASSERT_EQ(Bf16ToFloat(pattern), bf16) << bits;
      ASSERT_EQ(FloatToBf16(Bf16ToFloat(pattern)), pattern);
    }
    if (std::isnan(f16)) {
      EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(F16ToFloat(pattern)))));
    } else {
      ASSERT_EQ(F16ToFloat(pattern), f16) << bits;
      ASSERT_EQ(FloatToF16(F16ToFloat(pattern)), pattern);
    }
  }
}

// Rounding of every value halfway between two neighbours, and just beside it.
template <typename Encode, typename Decode>
void ExpectNearestEven(Encode encode, Decode decode, uint16_t largest_finite) {
  for (uint16_t low = 0; low < largest_finite; ++low) {
    const uint16_t high = low + 1;
    const float middle = static_cast<float>((static_cast<double>(decode(low)) + decode(high)) / 2);
    ASSERT_EQ(encode(middle), low % 2 == 0 ? low : high) << low;
    ASSERT_EQ(encode(-middle), (low % 2 == 0 ? low : high) | 0x8000) << low;
    ASSERT_EQ(encode(std::nextafter(middle, 0.0f)), low) << low;
    ASSERT_EQ(encode(std::nextafter(middle, INFINITY)), high) << low;
  }
}

TEST(Numeric, RoundsToNearestEven) {
  ExpectNearestEven(FloatToBf16, Bf16ToFloat, 0x7f7f);
  ExpectNearestEven(FloatToF16, F16ToFloat, 0x7bff);
}

TEST(Numeric, OverflowsToInfinity) {
  EXPECT_EQ(FloatToF16(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToF16(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToF16(1e30f), 0x7c00);
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::max()), 0x7f80);
}

SoftmaxState<double> StateOf(double max, double sum) {
  SoftmaxState<double> state;
  state.max = max;
  state.sum = sum;
  return state;
}

TEST(SoftmaxState, MergeIsAMonoid) {
  std::mt19937 rng(2);
  std::normal_distribution<double> normal(0.0, 30.0);
  for (int trial = 0; trial < 1000; ++trial) {
    const double a = normal(rng), b = normal(rng), c = normal(rng);
    const double left = MergeLse(MergeLse(a, b).lse, c).lse;
    const double right = MergeLse(a, MergeLse(b, c).lse).lse;
    EXPECT_NEAR(left, right, 1e-12 * (1 + std::fabs(left)));
    const MergeWeights<double> weights = MergeLse(a, b);
    EXPECT_NEAR(weights.a + weights.b, 1.0, 1e-12);
    EXPECT_NEAR(MergeOutput(weights, 5.0, 5.0), 5.0, 1e-12);
  }
}

TEST(SoftmaxState, IdentityChangesNothingAndIsNotRead) {
  const MergeWeights<double> right = MergeLse(2.5, -kInfinity);
  EXPECT_EQ(right.lse, 2.5);
  EXPECT_EQ(MergeOutput<double>(right, 7.0, kNaN), 7.0);
  const MergeWeights<double> left = MergeLse(-kInfinity, 2.5);
  EXPECT_EQ(left.lse, 2.5);
  EXPECT_EQ(MergeOutput<double>(left, kNaN, 7.0), 7.0);
  EXPECT_EQ(MergeLse(-kInfinity, -kInfinity).lse, -kInfinity);
  EXPECT_TRUE(std::isnan(MergeLse<double>(kNaN, 1.0).lse));
  EXPECT_TRUE(std::isnan(MergeLse<double>(1.0, kNaN).lse));
}

TEST(SoftmaxState, RaiseMaxKeepsTheSum) {
  auto exp = [](double x) { return std::exp(x); };
  SoftmaxState<double> state = StateOf(1.0, 3.0);
  EXPECT_NEAR(RaiseMax(state, 4.0, exp), std::exp(-3.0), 1e-15);
  EXPECT_NEAR(state.max + std::log(state.sum), 1.0 + std::log(3.0), 1e-12);
  EXPECT_EQ(RaiseMax(state, 2.0, exp), 1.0);
  SoftmaxState<double> empty;
  EXPECT_EQ(RaiseMax(empty, -kInfinity, exp), 1.0);
  EXPECT_EQ(RaiseMax(empty, 3.0, exp), 0.0);
  EXPECT_EQ(empty.sum, 0.0);
}

TEST(ErrorMetrics, KnowNaNAndInfinity) {
  const std::vector<double> want = {3.0, -kInfinity, 4.0};
  const float minus_infinity = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(RelativeRmse(std::vector<float>{3.0f, minus_infinity, 4.0f}, want), 0.0);
  EXPECT_DOUBLE_EQ(RelativeRmse(std::vector<float>{3.0f, minus_infinity, 5.0f}, want), 0.2);
  EXPECT_EQ(RelativeRmse(std::vector<float>{kNaN, minus_infinity, 4.0f}, want), kInfinity);
  EXPECT_EQ(RelativeRmse(std::vector<float>{3.0f}, want), kInfinity);
  EXPECT_EQ(MaxAbsError(std::vector<float>{3.0f, 0.0f, 4.0f}, want), kInfinity);
  EXPECT_EQ(MaxAbsError(std::vector<float>{2.5f, minus_infinity, 4.0f}, want), 0.5);
  EXPECT_EQ(RelativeRmse(std::vector<float>{}, std::vector<double>{}), 0.0);
}

}  // namespace
}  // namespace annulus::kernels
