// SPDX-License-Identifier: Apache-2.0
// The CPU backward pass against the float64 reference, and its promises.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cpu/tile.h"
#include "kernels/tensor_view.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void RunBoth(CpuDevice& device, AttentionCase& c) {
  device.Attend(c);
  device.AttendBackward(c);
}

std::vector<int> HeadSizes() {
  if (kUnderSanitizer) return {24, 64};
  return {16, 24, 40, 64, 72, 128, 256};
}

class BackwardHeadSize : public testing::TestWithParam<std::tuple<int, annulusDtype>> {};

TEST_P(BackwardHeadSize, MatchesReference) {
  const auto [head_dim, dtype] = GetParam();
  CpuDevice device(1);
  for (const annulusMask mask : {Full(), Causal(41), Causal(-30), Causal(41, 50)}) {
    AttentionCase c({1, 209, 250, 2, 1, head_dim, dtype, mask});
    SCOPED_TRACE(testing::Message() << "mask " << mask.kind << " offset " << mask.causal_offset
                                    << " window " << mask.window_left);
    RunBoth(device, c);
    ExpectGradientsMatch(c);
  }
}

INSTANTIATE_TEST_SUITE_P(All, BackwardHeadSize,
                         testing::Combine(testing::ValuesIn(HeadSizes()),
                                          testing::Values(ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16)));

TEST(AttendBackward, RandomShapes) {
  std::mt19937 rng(11);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  CpuDevice device(2);
  for (int trial = 0; trial < (kUnderSanitizer ? 6 : 40); ++trial) {
    const int64_t kv_heads = pick(1, 3);
    const int64_t q_rows = pick(1, 450);
    const int64_t kv_rows = pick(2, 450);
    const annulusMask masks[] = {Full(), Causal(kv_rows - q_rows), Causal(pick(-200, 200)),
                                 Causal(kv_rows - q_rows, pick(1, 100)), Full(pick(1, 300))};
    AttentionCase c({pick(1, 2), q_rows, kv_rows, kv_heads * pick(1, 4), kv_heads, 8 * pick(2, 12),
                     ANNULUS_F32, masks[trial % 5]},
                    trial);
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    RunBoth(device, c);
    ExpectGradientsMatch(c);
  }
}

TEST(AttendBackward, GroupedQueryHeadsShareTheirKeys) {
  for (const auto& [q_heads, kv_heads] : {std::pair(8, 2), std::pair(8, 1), std::pair(3, 3)}) {
    AttentionCase c({2, 100, 230, q_heads, kv_heads, 32, ANNULUS_F32, Causal(130)});
    CpuDevice device(2);
    RunBoth(device, c);
    ExpectGradientsMatch(c);
  }
}

TEST(AttendBackward, LongerThanOneRoundOfTiles) {
  if (kUnderSanitizer) GTEST_SKIP() << "a minute of plain loops in the reference";
  AttentionCase c({1, 40, 16 * cpu::kKeyTile + 50, 1, 1, 16});
  AttentionCase tall({1, 192 * 17, 50, 1, 1, 16});
  CpuDevice device(1);
  RunBoth(device, c);
  ExpectGradientsMatch(c);
  RunBoth(device, tall);
  ExpectGradientsMatch(tall);
}

// The pieces of any cut of queries and keys add up to the whole, as on a ring.
TEST(AttendBackward, AnyLayoutInAnyPieces) {
  std::mt19937 rng(5);
  CpuDevice device(1);
  for (int trial = 0; trial < 8; ++trial) {
    AttentionCase c({1, 300, 420, 2, 1, 40, ANNULUS_F32, Causal(120, trial % 3 == 0 ? 90 : -1)});
    c.q_spans = trial % 2 == 0 ? ZigzagSpans(300, 3) : StripedSpans(300, 4);
    c.kv_spans = trial % 4 < 2 ? ZigzagSpans(420, 4) : StripedSpans(420, 3);
    device.Attend(c);
    const annulusTensor d_o = c.d_o();
    const annulusTensor o = c.o();
    const annulusRowStat delta = c.delta();
    device.Check(device.api().backward_prepare(device.stream(), &d_o, &o, &delta));
    annulusAttendBackwardArgs args = c.BackwardArgs();
    const auto kv_lists = SplitSpans(c.kv_spans, 3, &rng);
    for (const auto& q_list : SplitSpans(c.q_spans, 2, &rng)) {
      for (const auto& kv_list : kv_lists) {
        args.q_spans = q_list.data();
        args.q_span_count = q_list.size();
        args.kv_spans = kv_list.data();
        args.kv_span_count = kv_list.size();
        device.Check(device.api().attend_backward(device.stream(), &args));
      }
    }
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    ExpectGradientsMatch(c);
  }
}

TEST(AttendBackward, GradientRowsMayBeElsewhere) {
  AttentionCase c({1, 64, 64, 1, 1, 16, ANNULUS_F32, Causal(0)});
  CpuDevice device(1);
  RunBoth(device, c);
  AttentionCase moved = c;
  moved.q_spans = moved.kv_spans = {{32, 32, 32, 1}};
  AttentionCase straight = moved;
  for (AttentionCase* one : {&moved, &straight}) {
    for (auto* gradient : {&one->dq_data, &one->dk_data, &one->dv_data}) {
      gradient->assign(gradient->size(), 0.0f);
    }
  }
  annulusAttendBackwardArgs args = straight.BackwardArgs();
  device.Check(device.api().attend_backward(device.stream(), &args));
  // The same rows, with lse and delta and the gradients in buffers that start at row 32.
  args = moved.BackwardArgs();
  args.lse.data += 32;
  args.delta.data += 32;
  args.lse.rows = args.delta.rows = args.dq.rows = args.dk.rows = args.dv.rows = 32;
  args.dq_row_offset = args.dkv_row_offset = -32;
  device.Check(device.api().attend_backward(device.stream(), &args));
  for (size_t i = 0; i < 32 * 16; ++i) {
    ASSERT_EQ(moved.dq_data[i], straight.dq_data[32 * 16 + i]);
    ASSERT_EQ(moved.dk_data[i], straight.dk_data[32 * 16 + i]);
    ASSERT_EQ(moved.dv_data[i], straight.dv_data[32 * 16 + i]);
  }
}

// Token 70 of one input is poisoned after the forward pass. Queries before 70 do not see key 70,
// and keys after 70 are not seen by query 70.
TEST(AttendBackward, MaskedNaNNeverLeaks) {
  const Shape shape = {1, 200, 200, 1, 1, 24, ANNULUS_F32, Causal(0)};
  CpuDevice device(1);
  AttentionCase clean(shape);
  RunBoth(device, clean);
  for (int input = 0; input < 4; ++input) {
    AttentionCase c(shape);
    device.Attend(c);
    const annulusTensor inputs[] = {c.q(), c.k(), c.v(), c.d_o()};
    AttentionCase::FillRow(inputs[input], 0, 70, 0, input == 2 ? kInfinity : kNaN);
    const annulusTensor d_o = c.d_o();
    const annulusTensor o = c.o();
    const annulusRowStat delta = c.delta();
    device.Check(device.api().backward_prepare(device.stream(), &d_o, &o, &delta));
    const annulusAttendBackwardArgs args = c.BackwardArgs();
    device.Check(device.api().attend_backward(device.stream(), &args));
    const bool of_query = input == 0 || input == 3;
    for (int64_t row = 0; row < 200; ++row) {
      SCOPED_TRACE(testing::Message() << "input " << input << " row " << row);
      const size_t at = row * 24;
      const bool query_sees = of_query ? row == 70 : row >= 70;
      if (query_sees) {
        EXPECT_FALSE(std::isfinite(c.dq_data[at]));
      } else {
        EXPECT_NEAR(c.dq_data[at], clean.dq_data[at], 1e-5);
      }
      const bool poisoned = of_query ? row <= 70 : row == 70;
      EXPECT_EQ(std::isfinite(c.dk_data[at]), !poisoned);
      if (!poisoned) {
        EXPECT_NEAR(c.dk_data[at], clean.dk_data[at], 1e-5);
        EXPECT_NEAR(c.dv_data[at], clean.dv_data[at], 1e-5);
      }
    }
  }
}

TEST(AttendBackward, RowsWithoutKeysContributeNothing) {
  AttentionCase c({1, 100, 100, 1, 1, 32, ANNULUS_F32, Causal(-60)});
  for (int64_t row = 0; row < 60; ++row) AttentionCase::FillRow(c.q(), 0, row, 0, kNaN);
  CpuDevice device(1);
  RunBoth(device, c);
  for (int64_t i = 0; i < 60 * 32; ++i) ASSERT_EQ(c.dq_data[i], 0.0f);
  for (const float value : c.dk_data) ASSERT_TRUE(std::isfinite(value));
  for (const float value : c.dv_data) ASSERT_TRUE(std::isfinite(value));
}

TEST(AttendBackward, AddsToWhatIsThere) {
  const Shape shape = {1, 50, 60, 2, 1, 16};
  CpuDevice device(1);
  AttentionCase zero(shape);
  RunBoth(device, zero);
  AttentionCase one(shape);
  for (auto* gradient : {&one.dq_data, &one.dk_data, &one.dv_data}) {
    gradient->assign(gradient->size(), 1.0f);
  }
  RunBoth(device, one);
  for (size_t i = 0; i < one.dk_data.size(); ++i) {
    ASSERT_NEAR(one.dk_data[i], 1.0f + zero.dk_data[i], 1e-5);
    ASSERT_NEAR(one.dv_data[i], 1.0f + zero.dv_data[i], 1e-5);
  }
  for (size_t i = 0; i < one.dq_data.size(); ++i) {
    ASSERT_NEAR(one.dq_data[i], 1.0f + zero.dq_data[i], 1e-5);
  }
}

TEST(AttendBackward, SameBytesEveryTimeAndForAnyThreads) {
  const Shape shape = {2, 500, 700, 4, 2, 64, ANNULUS_BF16, Causal(200)};
  AttentionCase one(shape);
  AttentionCase three = one;
  CpuDevice single(1);
  CpuDevice several(3);
  RunBoth(single, one);
  RunBoth(several, three);
  EXPECT_EQ(one.dq_data, three.dq_data);
  EXPECT_EQ(one.dk_data, three.dk_data);
  EXPECT_EQ(one.dv_data, three.dv_data);
}

// Blocks make more rounds on one thread, which has a head to itself, than on three; tiles make two.
TEST(AttendBackward, SameBytesHoweverRoundsAreCut) {
  const int64_t rows = 9 * cpu::kQueryBlock + 5;
  const int64_t keys = 16 * cpu::kKeyTile + 50;
  for (const bool poisoned : {false, true}) {
    AttentionCase one({1, rows, keys, 1, 1, 16, ANNULUS_F32, Causal(keys - rows)});
    if (poisoned) {
      AttentionCase::FillRow(one.k(), 0, keys - 9, 0, std::numeric_limits<float>::infinity());
    }
    AttentionCase three = one;
    CpuDevice single(1);
    CpuDevice several(3);
    RunBoth(single, one);
    RunBoth(several, three);
    const auto bytes = [](const std::vector<float>& of) {
      return std::string(reinterpret_cast<const char*>(of.data()), of.size() * sizeof(float));
    };
    EXPECT_TRUE(bytes(one.dq_data) == bytes(three.dq_data));
    EXPECT_TRUE(bytes(one.dk_data) == bytes(three.dk_data));
    EXPECT_TRUE(bytes(one.dv_data) == bytes(three.dv_data));
  }
}

}  // namespace
}  // namespace annulus::kernels
