// SPDX-License-Identifier: Apache-2.0
// The CPU forward pass against the float64 reference, and its promises.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "kernels/cpu/tile.h"
#include "kernels/tensor_view.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class AttendHeadSize : public testing::TestWithParam<std::tuple<int, annulusDtype>> {};

TEST_P(AttendHeadSize, MatchesReference) {
  const auto [head_dim, dtype] = GetParam();
  for (const annulusMask mask : {Full(), Causal(41), Causal(-30), Causal(41, 50), Full(20)}) {
    AttentionCase c({1, 209, 250, 2, 1, head_dim, dtype, mask});
    CpuDevice(1).Attend(c);
    SCOPED_TRACE(testing::Message() << "mask " << mask.kind << " offset " << mask.causal_offset
                                    << " window " << mask.window_left);
    ExpectForwardMatches(c);
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttendHeadSize,
                         testing::Combine(testing::Values(16, 24, 40, 64, 72, 128, 256),
                                          testing::Values(ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16)));

TEST(Attend, RandomShapes) {
  std::mt19937 rng(7);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  CpuDevice device(2);
  for (int trial = 0; trial < (kUnderSanitizer ? 10 : 60); ++trial) {
    const int64_t kv_heads = pick(1, 3);
    const int64_t q_rows = pick(1, 450);
    const int64_t kv_rows = pick(1, 450);
    const annulusMask masks[] = {Full(), Causal(kv_rows - q_rows), Causal(pick(-200, 200)),
                                 Causal(kv_rows - q_rows, pick(0, 100)), Full(pick(0, 300))};
    const Shape shape = {
        pick(1, 2),      q_rows,      kv_rows,          kv_heads * pick(1, 4),        kv_heads,
        8 * pick(2, 12), ANNULUS_F32, masks[trial % 5], trial % 7 == 0 ? -0.3f : 0.0f};
    AttentionCase c(shape, trial);
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    device.Attend(c);
    ExpectForwardMatches(c);
  }
}

TEST(Attend, GroupedQueryHeads) {
  for (const auto& [q_heads, kv_heads] : {std::pair(8, 2), std::pair(8, 1), std::pair(3, 3)}) {
    AttentionCase c({2, 100, 230, q_heads, kv_heads, 32, ANNULUS_F32, Causal(130)});
    CpuDevice(2).Attend(c);
    ExpectForwardMatches(c);
  }
}

TEST(Attend, LongerThanOneRoundOfTiles) {
  AttentionCase c({1, 31, 32 * cpu::kKeyTile + 100, 2, 1, 16, ANNULUS_F32, Full()});
  CpuDevice(1).Attend(c);
  ExpectForwardMatches(c);
}

TEST(Attend, AnyLayoutInAnyPieces) {
  std::mt19937 rng(3);
  CpuDevice device(1);
  for (int trial = 0; trial < 12; ++trial) {
    AttentionCase c({1, 300, 420, 2, 1, 40, ANNULUS_F32, Causal(120, trial % 3 == 0 ? 90 : -1)});
    c.q_spans = trial % 2 == 0 ? ZigzagSpans(300, 3) : StripedSpans(300, 4);
    c.kv_spans = trial % 4 < 2 ? ZigzagSpans(420, 4) : StripedSpans(420, 3);
    const auto q_lists = SplitSpans(c.q_spans, 2, &rng);
    const auto kv_lists = SplitSpans(c.kv_spans, 3, &rng);
    annulusAttendArgs args = c.Args();
    for (const auto& q_list : q_lists) {
      for (const auto& kv_list : kv_lists) {
        args.q_spans = q_list.data();
        args.q_span_count = q_list.size();
        args.kv_spans = kv_list.data();
        args.kv_span_count = kv_list.size();
        device.Attend(args);
      }
    }
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    ExpectForwardMatches(c);
  }
}

// Error must not grow with the number of steps on a ring.
TEST(Attend, ManyMergesStayWithinTheGates) {
  AttentionCase c({1, 64, 4096, 1, 1, 64, ANNULUS_F32, Full()});
  CpuDevice device(1);
  for (int64_t step = 0; step < 64; ++step) {
    c.kv_spans = {{64 * step, 64, 64 * step, 1}};
    device.Attend(c);
  }
  c.kv_spans = {{0, 4096, 0, 1}};
  ExpectForwardMatches(c);
}

TEST(Attend, InPlaceStateEqualsSeparateMerge) {
  AttentionCase in_place({1, 130, 400, 2, 2, 64, ANNULUS_F32, Causal(270)});
  AttentionCase first = in_place;
  AttentionCase second = in_place;
  CpuDevice device(1);
  first.kv_spans = {{0, 150, 0, 1}};
  second.kv_spans = {{150, 250, 150, 1}};
  device.Attend(first);
  device.Attend(second);
  const annulusTensor o = first.o();
  const annulusTensor o2 = second.o();
  const annulusRowStat lse = first.lse();
  const annulusRowStat lse2 = second.lse();
  device.Check(device.api().merge(device.stream(), &o, &lse, &o2, &lse2));
  for (const annulusSpan& span : {annulusSpan{0, 150, 0, 1}, annulusSpan{150, 250, 150, 1}}) {
    in_place.kv_spans = {span};
    device.Attend(in_place);
  }
  for (size_t i = 0; i < in_place.o_data.size(); ++i) {
    ASSERT_NEAR(in_place.o_data[i], first.o_data[i], 2e-6) << i;
  }
  for (size_t i = 0; i < in_place.lse_data.size(); ++i) {
    ASSERT_NEAR(in_place.lse_data[i], first.lse_data[i], 2e-6) << i;
  }
}

TEST(Attend, OutputRowsMayBeElsewhere) {
  AttentionCase c({1, 64, 64, 2, 1, 16, ANNULUS_F32, Causal(0)});
  AttentionCase half = c;
  CpuDevice device(1);
  device.Attend(c);
  // Rows 32 to 64 of q into rows 0 to 32 of a smaller o.
  half.q_spans = {{32, 32, 32, 1}};
  annulusAttendArgs args = half.Args();
  args.o.rows = args.lse.rows = 32;
  args.o_row_offset = -32;
  device.Attend(args);
  const size_t row = 2 * 16;
  for (size_t i = 0; i < 32 * row; ++i) ASSERT_EQ(half.o_data[i], c.o_data[32 * row + i]);
  for (size_t i = 0; i < 32 * 2; ++i) ASSERT_EQ(half.lse_data[i], c.lse_data[32 * 2 + i]);
}

TEST(Attend, RowsWithoutKeysKeepTheirBytes) {
  AttentionCase c({1, 100, 100, 1, 1, 32, ANNULUS_F32, Causal(-60)});
  c.o_data[0] = 0.125f;
  c.lse_data[0] = 3.1f;
  CpuDevice(1).Attend(c);
  EXPECT_EQ(c.o_data[0], 0.125f);
  EXPECT_EQ(c.lse_data[0], 3.1f);
  for (int row = 1; row < 60; ++row) {
    EXPECT_EQ(c.lse_data[row], -kInfinity);
    EXPECT_EQ(c.o_data[row * 32], 0.0f);
  }
  EXPECT_GT(c.lse_data[60], -kInfinity);
}

TEST(Attend, IdentityStateIsNeverRead) {
  AttentionCase c({1, 20, 20, 1, 1, 16});
  c.o_data.assign(c.o_data.size(), kNaN);
  CpuDevice(1).Attend(c);
  ExpectForwardMatches(c);
}

// Row 70 of K or V is poisoned; under a causal mask only queries from 70 on may notice.
TEST(Attend, NaNReachesExactlyTheRowsThatSeeIt) {
  for (const float poison : {kNaN, kInfinity, -kInfinity}) {
    for (const bool in_v : {false, true}) {
      for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16}) {
        AttentionCase clean({1, 200, 200, 1, 1, 24, dtype, Causal(0)});
        AttentionCase c = clean;
        AttentionCase::FillRow(in_v ? c.v() : c.k(), 0, 70, 0, poison);
        CpuDevice device(1);
        device.Attend(clean);
        device.Attend(c);
        for (int64_t row = 0; row < 200; ++row) {
          const float o = c.o_data[row * 24];
          if (row >= 70) {
            // An infinite key may also have a score of -inf and so a weight of zero.
            EXPECT_TRUE(!std::isfinite(o) || (!in_v && std::isinf(poison))) << row;
          } else {
            EXPECT_NEAR(o, clean.o_data[row * 24], 1e-6) << row;
            EXPECT_EQ(c.lse_data[row], clean.lse_data[row]) << row;
          }
        }
      }
    }
  }
}

TEST(Attend, NaNOfAQueryStaysInItsRow) {
  AttentionCase clean({1, 100, 100, 1, 1, 16});
  AttentionCase c = clean;
  AttentionCase::FillRow(c.q(), 0, 33, 0, kNaN);
  CpuDevice device(1);
  device.Attend(clean);
  device.Attend(c);
  for (int64_t row = 0; row < 100; ++row) {
    if (row == 33) {
      EXPECT_TRUE(std::isnan(c.o_data[row * 16]));
      EXPECT_TRUE(std::isnan(c.lse_data[row]));
    } else {
      EXPECT_EQ(c.o_data[row * 16], clean.o_data[row * 16]) << row;
    }
  }
}

TEST(Attend, LargeScoresDoNotOverflow) {
  AttentionCase c({1, 90, 300, 1, 1, 64, ANNULUS_F32, Causal(210), 40.0f});
  CpuDevice(1).Attend(c);
  const ReferenceForward want = AttendReference(c.Inputs(), AllRows(90));
  for (size_t i = 0; i < want.lse.size(); ++i) {
    // Scores of some thousands: the error is relative to them.
    EXPECT_NEAR(c.lse_data[i], want.lse[i], 2e-6 * std::fabs(want.lse[i]) + 1e-3);
  }
  for (const float value : c.o_data) EXPECT_TRUE(std::isfinite(value));
}

TEST(Attend, SameBytesEveryTimeAndForAnyThreads) {
  const Shape shape = {2, 500, 700, 4, 2, 64, ANNULUS_BF16, Causal(200)};
  AttentionCase one(shape);
  AttentionCase again = one;
  AttentionCase three = one;
  CpuDevice single(1);
  single.Attend(one);
  single.Attend(again);
  CpuDevice(3).Attend(three);
  EXPECT_EQ(one.o_data, again.o_data);
  EXPECT_EQ(one.lse_data, again.lse_data);
  EXPECT_EQ(one.o_data, three.o_data);
  EXPECT_EQ(one.lse_data, three.lse_data);
}

TEST(Attend, NothingToDo) {
  AttentionCase c({1, 10, 10, 1, 1, 16});
  const std::vector<float> before = c.o_data;
  c.kv_spans.clear();
  CpuDevice device(1);
  device.Attend(c);
  c.kv_spans = {{0, 0, 0, 1}};
  c.q_spans = {{10, 0, 0, 1}};
  device.Attend(c);
  EXPECT_EQ(c.o_data, before);
}

}  // namespace
}  // namespace annulus::kernels
