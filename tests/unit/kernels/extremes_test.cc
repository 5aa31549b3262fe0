// SPDX-License-Identifier: Apache-2.0
// Inputs at the edges of the arithmetic, against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/reference/error_metrics.h"
#include "kernels/tensor_view.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

// Every row likes a few keys equally and far better than all others, with scores of 1e4. The output
// is within the plain gates; the LSE can be no nearer than its own representation.
TEST(Extremes, PeakedRowsWithScoresUpToTenThousand) {
  for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16}) {
    AttentionCase c({1, 300, 400, 2, 1, 64, dtype, Causal(100), 1.0f});
    // Unit vectors times 100: their products are 0 or 1e4.
    const auto point = [&](std::vector<uint8_t>& data, int64_t row, int64_t axis) {
      std::vector<float> values(64, 0.0f);
      values[axis] = 100.0f;
      StoreFromFloat(values.data(), 64, dtype, data.data() + row * 64 * DtypeBytes(dtype));
    };
    for (int64_t row = 0; row < 400; ++row) point(c.k_data, row, row % 64);
    for (int64_t row = 0; row < 600; ++row) point(c.q_data, row, row * 7 % 64);
    CpuDevice(1).Attend(c);
    const ReferenceForward want = AttendReference(c.Inputs(), AllRows(300));
    for (size_t i = 0; i < want.lse.size(); ++i) {
      const auto rounded = static_cast<float>(want.lse[i]);
      const float ulp = std::nextafter(rounded, 1e30f) - rounded;
      EXPECT_NEAR(c.lse_data[i], want.lse[i], 2e-5 + 2 * ulp);
    }
    EXPECT_LE(RelativeRmse(c.o_data, want.o), dtype == ANNULUS_F32 ? 5e-6 : 2.6e-3);
  }
}

// Denormal inputs count as zero; the results are those of float64 within the gates.
TEST(Extremes, Denormals) {
  AttentionCase c({1, 250, 300, 2, 2, 40, ANNULUS_F32, Causal(50)});
  for (std::vector<uint8_t>* data : {&c.q_data, &c.k_data, &c.v_data, &c.do_data}) {
    auto* values = reinterpret_cast<float*>(data->data());
    const size_t count = data->size() / sizeof(float);
    for (size_t i = 0; i < count; i += 3) values[i] *= 1e-39f;
  }
  CpuDevice device(1);
  device.Attend(c);
  ExpectForwardMatches(c);
  device.AttendBackward(c);
  ExpectGradientsMatch(c);
}

// Scores so low that every other weight is a denormal or less.
TEST(Extremes, WeightsThatVanish) {
  AttentionCase c({1, 100, 200, 1, 1, 16, ANNULUS_F32, Full(), 30.0f});
  CpuDevice device(1);
  device.Attend(c);
  for (const float value : c.o_data) EXPECT_TRUE(std::isfinite(value));
  const ReferenceForward want = AttendReference(c.Inputs(), AllRows(100));
  // A score of s is known to s * 2^-22 (products and their sum), and a weight as well as its score.
  EXPECT_LE(RelativeRmse(c.o_data, want.o), 500 * std::ldexp(1.0, -22));
}

TEST(Extremes, RowsWithAllKeysMaskedAreTheIdentity) {
  AttentionCase c({1, 300, 300, 1, 1, 64, ANNULUS_BF16, Causal(-200)});
  CpuDevice device(1);
  device.Attend(c);
  ExpectForwardMatches(c);
  device.AttendBackward(c);
  ExpectGradientsMatch(c);
  for (int64_t row = 0; row < 200; ++row) {
    EXPECT_EQ(c.lse_data[row], -std::numeric_limits<float>::infinity());
    EXPECT_EQ(c.o_data[row * 64], 0.0f);
    EXPECT_EQ(c.dq_data[row * 64], 0.0f);
  }
}

}  // namespace
}  // namespace annulus::kernels
