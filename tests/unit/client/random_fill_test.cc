// SPDX-License-Identifier: Apache-2.0
#include "client/cli/random_fill.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace annulus::cli {
namespace {

std::vector<float> Draw(int64_t rows, uint64_t seed, const std::string& name) {
  std::vector<float> values(static_cast<size_t>(rows) * 16);
  FillNormal({values.data(), client::DataType::kF32, 1, rows, 1, 16}, seed, name);
  return values;
}

TEST(FillNormal, HasTheMomentsOfN01) {
  const std::vector<float> values = Draw(20000, 1, "q");  // 320,000: sd of the mean is 1.8e-3
  double sum = 0, squares = 0, fourths = 0;
  for (const double v : values) {
    sum += v;
    squares += v * v;
    fourths += v * v * v * v;
  }
  const auto n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(squares / n, 1, 0.015);
  EXPECT_NEAR(fourths / n, 3, 0.1);
}

TEST(FillNormal, IsAFunctionOfSeedNameAndIndex) {
  const std::vector<float> some = Draw(100, 5, "k");
  EXPECT_EQ(some, Draw(100, 5, "k"));
  EXPECT_NE(some, Draw(100, 6, "k"));
  EXPECT_NE(some, Draw(100, 5, "v"));
  // More elements, and so more threads, leave the first ones as they were.
  const std::vector<float> more = Draw(30000, 5, "k");
  EXPECT_TRUE(std::equal(some.begin(), some.end(), more.begin()));
}

}  // namespace
}  // namespace annulus::cli
