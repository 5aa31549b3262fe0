// SPDX-License-Identifier: Apache-2.0
// The oracle itself, against cases small enough to know and against finite differences.
#include "kernels/reference/reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/tensor_view.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Reference, OneKeyIsCopied) {
  AttentionCase c({1, 1, 1, 1, 1, 16, ANNULUS_BF16});
  const ReferenceForward got = AttendReference(c.Inputs(), {0});
  std::vector<float> v(16);
  LoadAsFloat(c.v_data.data(), ANNULUS_BF16, 16, v.data());
  for (int i = 0; i < 16; ++i) EXPECT_DOUBLE_EQ(got.o[i], v[i]);
}

// Equal keys share their weight evenly: o is the mean of the visible values, lse = s + ln n.
TEST(Reference, EqualKeysAverageAndMasksCount) {
  AttentionCase c({1, 4, 6, 1, 1, 16, ANNULUS_F32, Causal(2)});
  for (int row = 0; row < 6; ++row) {
    AttentionCase::FillRow(c.k(), 0, row, 0, 0.0f);
    AttentionCase::FillRow(c.v(), 0, row, 0, static_cast<float>(row));
  }
  ReferenceForward got = AttendReference(c.Inputs(), AllRows(4));
  for (int row = 0; row < 4; ++row) {  // sees keys 0 to row + 2
    EXPECT_NEAR(got.o[row * 16], (row + 2) / 2.0, 1e-12);
    EXPECT_NEAR(got.lse[row], std::log(row + 3.0), 1e-12);
  }
  c.shape.mask = Causal(2, 1);  // sees keys row + 1 and row + 2
  got = AttendReference(c.Inputs(), {3});
  EXPECT_NEAR(got.o[0], 4.5, 1e-12);
  EXPECT_NEAR(got.lse[0], std::log(2.0), 1e-12);
  c.shape.mask = Causal(-2);
  got = AttendReference(c.Inputs(), {1, 2});
  EXPECT_EQ(got.lse[0], -kInfinity);
  EXPECT_EQ(got.o[0], 0.0);
  EXPECT_EQ(got.lse[1], 0.0);
}

TEST(Reference, SampledRowsAreThoseOfTheWhole) {
  AttentionCase c({2, 33, 47, 4, 2, 16, ANNULUS_F16, Causal(14)});
  const std::vector<int64_t> query_rows = SampleRows(33, 5);
  const std::vector<int64_t> key_rows = SampleRows(47, 4);
  EXPECT_EQ(query_rows, (std::vector<int64_t>{0, 8, 16, 24, 32}));
  EXPECT_EQ(SampleRows(3, 9), AllRows(3));
  const ReferenceForward whole = AttendReference(c.Inputs(), AllRows(33));
  const ReferenceForward part = AttendReference(c.Inputs(), query_rows);
  const ReferenceGradients all =
      AttendBackwardReference(c.Inputs(), c.d_o(), AllRows(33), AllRows(47));
  const ReferenceGradients some =
      AttendBackwardReference(c.Inputs(), c.d_o(), query_rows, key_rows);
  const ReferenceGradients only_dq = AttendBackwardReference(c.Inputs(), c.d_o(), query_rows, {});
  EXPECT_EQ(some.dq, only_dq.dq);
  EXPECT_TRUE(only_dq.dk.empty());
  auto at = [](const std::vector<double>& values, int64_t rows, int64_t width, int64_t batch,
               int64_t row) {
    const auto begin = values.begin() + (batch * rows + row) * width;
    return std::vector<double>(begin, begin + width);
  };
  for (int64_t batch = 0; batch < 2; ++batch) {
    for (size_t i = 0; i < query_rows.size(); ++i) {
      EXPECT_EQ(at(part.o, 5, 64, batch, i), at(whole.o, 33, 64, batch, query_rows[i]));
      EXPECT_EQ(at(part.lse, 5, 4, batch, i), at(whole.lse, 33, 4, batch, query_rows[i]));
      EXPECT_EQ(at(some.dq, 5, 64, batch, i), at(all.dq, 33, 64, batch, query_rows[i]));
    }
    for (size_t i = 0; i < key_rows.size(); ++i) {
      EXPECT_EQ(at(some.dk, 4, 32, batch, i), at(all.dk, 47, 32, batch, key_rows[i]));
      EXPECT_EQ(at(some.dv, 4, 32, batch, i), at(all.dv, 47, 32, batch, key_rows[i]));
    }
  }
}

TEST(Reference, ThreadsDoNotChangeTheResult) {
  AttentionCase c({1, 50, 70, 2, 1, 24, ANNULUS_F32, Causal(20)});
  ReferenceInputs one = c.Inputs();
  one.threads = 1;
  ReferenceInputs three = c.Inputs();
  three.threads = 3;
  EXPECT_EQ(AttendReference(one, AllRows(50)).o, AttendReference(three, AllRows(50)).o);
  EXPECT_EQ(AttendBackwardReference(one, c.d_o(), AllRows(50), AllRows(70)).dk,
            AttendBackwardReference(three, c.d_o(), AllRows(50), AllRows(70)).dk);
}

// loss = sum(o * do), in float64.
double Loss(AttentionCase& c) {
  const ReferenceForward forward = AttendReference(c.Inputs(), AllRows(c.shape.q_rows));
  const float* d_o = reinterpret_cast<const float*>(c.do_data.data());
  double loss = 0.0;
  for (size_t i = 0; i < forward.o.size(); ++i) loss += forward.o[i] * d_o[i];
  return loss;
}

TEST(Reference, GradientsAreTheSlopesOfTheForward) {
  AttentionCase c({1, 9, 11, 4, 2, 16, ANNULUS_F32, Causal(2, 6)});
  c.q_spans = ZigzagSpans(9, 2);
  c.kv_spans = StripedSpans(11, 2);
  const ReferenceGradients gradients =
      AttendBackwardReference(c.Inputs(), c.d_o(), AllRows(9), AllRows(11));
  constexpr float kStep = 1.0f / 1024;
  const std::pair<std::vector<uint8_t>*, const std::vector<double>*> inputs[] = {
      {&c.q_data, &gradients.dq}, {&c.k_data, &gradients.dk}, {&c.v_data, &gradients.dv}};
  for (const auto& [data, gradient] : inputs) {
    float* values = reinterpret_cast<float*>(data->data());
    for (size_t i = 0; i < gradient->size(); i += 7) {
      const float before = values[i];
      const float up = before + kStep;
      const float down = before - kStep;
      values[i] = up;
      const double high = Loss(c);
      values[i] = down;
      const double low = Loss(c);
      values[i] = before;
      EXPECT_NEAR((*gradient)[i], (high - low) / (static_cast<double>(up) - down), 1e-5) << i;
    }
  }
}

}  // namespace
}  // namespace annulus::kernels
