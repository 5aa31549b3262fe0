// SPDX-License-Identifier: Apache-2.0
// The forward kernels of compute capability 9.0, whole: loading and computing warpgroups, pipelines
// and masks, run through the plugin on the emulated block, against the float64 reference.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/cuda/cuda_plugin.h"
#include "kernels/reference/error_metrics.h"
#include "kernels/tensor_view.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/cuda/fake_driver.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class HopperForward : public testing::Test {
 protected:
  void SetUp() override {
    cuda::Fake() = cuda::FakeCuda();
    cuda::Fake().properties.multiprocessors = 3;  // so that a block has several units
  }
  // Every launch was of a kernel of 9.0.
  void TearDown() override {
    for (const cuda::FakeLaunch& launch : cuda::Fake().launches) {
      EXPECT_TRUE(cuda::ShapeOf(launch.kernel).hopper) << cuda::ShapeOf(launch.kernel).name;
    }
  }
};

TEST_F(HopperForward, HeadSizesDtypesAndMasks) {
  TestDevice device(CudaPlugin());
  int trial = 0;
  for (const int64_t head_dim : {16, 40, 64, 72, 128}) {
    for (const annulusDtype dtype : {ANNULUS_BF16, ANNULUS_F16}) {
      if (kUnderSanitizer && dtype == ANNULUS_F16) continue;  // as bf16, but for the conversion
      const annulusMask masks[] = {Full(), Causal(130), Causal(-30), Causal(100, 150), Full(90)};
      AttentionCase c({1, 210, 400, 2, 1, head_dim, dtype, masks[trial++ % 5]}, trial);
      SCOPED_TRACE(testing::Message() << "head size " << head_dim << " dtype " << dtype);
      device.Attend(c);
      ExpectForwardMatches(c);
    }
  }
}

TEST_F(HopperForward, RandomShapes) {
  std::mt19937 rng(7);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  TestDevice device(CudaPlugin());
  for (int trial = 0; trial < (kUnderSanitizer ? 2 : 12); ++trial) {
    cuda::Fake().schedule_seed = trial;
    const int64_t kv_heads = pick(1, 2);
    const int64_t q_rows = pick(1, 300);
    const int64_t kv_rows = pick(1, 600);
    const annulusMask masks[] = {Full(), Causal(kv_rows - q_rows), Causal(pick(-20, 300)),
                                 Causal(kv_rows - q_rows, pick(1, 200)), Full(pick(1, 300))};
    AttentionCase c({pick(1, 2), q_rows, kv_rows, kv_heads * pick(1, 3), kv_heads, 8 * pick(2, 16),
                     trial % 3 == 0 ? ANNULUS_F16 : ANNULUS_BF16, masks[trial % 5]},
                    trial);
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    device.Attend(c);
    ExpectForwardMatches(c);
  }
}

// As on a ring: the pieces of any cut of queries and keys, in place, give the whole.
TEST_F(HopperForward, AnyLayoutInAnyPieces) {
  std::mt19937 rng(3);
  TestDevice device(CudaPlugin());
  for (int trial = 0; trial < (kUnderSanitizer ? 2 : 4); ++trial) {
    AttentionCase c({1, 140, 200, 1, 1, trial % 2 == 0 ? 64 : 128, ANNULUS_BF16,
                     Causal(60, trial == 3 ? 100 : -1)});
    c.q_spans = trial % 2 == 0 ? ZigzagSpans(140, 2) : StripedSpans(140, 3);
    c.kv_spans = trial < 2 ? ZigzagSpans(200, 2) : StripedSpans(200, 3);
    const auto q_lists = SplitSpans(c.q_spans, 2, &rng);
    const auto kv_lists = SplitSpans(c.kv_spans, 2, &rng);
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

// Whoever runs when: the same bits.
TEST_F(HopperForward, TheOrderOfWarpsChangesNoBit) {
  TestDevice device(CudaPlugin());
  for (const int64_t head_dim : {64, 128}) {
    const Shape shape = {1, 250, 500, 2, 1, head_dim, ANNULUS_BF16, Causal(250, 400)};
    AttentionCase first(shape);
    device.Attend(first);
    for (uint32_t seed = 2; seed < (kUnderSanitizer ? 3 : 7); ++seed) {
      cuda::Fake().schedule_seed = seed;
      AttentionCase other(shape);
      device.Attend(other);
      EXPECT_EQ(other.o_data, first.o_data);
      EXPECT_EQ(other.lse_data, first.lse_data);
    }
  }
}

TEST_F(HopperForward, RowsWithoutKeysKeepTheirBytes) {
  AttentionCase c({1, 300, 300, 1, 1, 64, ANNULUS_BF16, Causal(-200)});
  c.o_data[0] = 0.125f;
  c.lse_data[0] = 3.1f;
  TestDevice device(CudaPlugin());
  device.Attend(c);
  EXPECT_EQ(c.o_data[0], 0.125f);
  EXPECT_EQ(c.lse_data[0], 3.1f);
  for (int row = 1; row < 200; ++row) {
    ASSERT_EQ(c.lse_data[row], -kInfinity);
    ASSERT_EQ(c.o_data[row * 64], 0.0f);
  }
  for (int row = 200; row < 300; ++row) ASSERT_GT(c.lse_data[row], -kInfinity);
}

TEST_F(HopperForward, IdentityStateIsNeverRead) {
  AttentionCase c({1, 100, 150, 1, 1, 128, ANNULUS_F16});
  c.o_data.assign(c.o_data.size(), kNaN);
  TestDevice(CudaPlugin()).Attend(c);
  ExpectForwardMatches(c);
}

// A row of one input is poisoned: of a tile that is seen in part, and of one that most queries see
// whole. Queries that may not see it must not notice.
TEST_F(HopperForward, MaskedNaNNeverLeaks) {
  TestDevice device(CudaPlugin());
  for (const int64_t head_dim : {64, 128}) {
    for (const int64_t poisoned : {70, 299}) {
      const Shape shape = {1, 300, 300, 1, 1, head_dim, ANNULUS_BF16, Causal(0)};
      AttentionCase whole(shape);
      device.Attend(whole);
      for (const bool in_v : {false, true}) {
        AttentionCase c(shape);
        AttentionCase::FillRow(in_v ? c.v() : c.k(), 0, poisoned, 0, in_v ? kInfinity : kNaN);
        device.Attend(c);
        for (int64_t row = 0; row < 300; ++row) {
          SCOPED_TRACE(testing::Message() << "head size " << head_dim << " in v " << in_v << " key "
                                          << poisoned << " row " << row);
          ASSERT_EQ(std::isfinite(c.o_data[row * head_dim]), row < poisoned);
          if (row >= poisoned) continue;
          EXPECT_EQ(c.lse_data[row], whole.lse_data[row]);
          EXPECT_NEAR(c.o_data[row * head_dim], whole.o_data[row * head_dim], 1e-5);
        }
      }
    }
  }
}

// What lies in the tensor beyond the span is loaded with its last tile, and does not count.
TEST_F(HopperForward, WhatFollowsTheSpanDoesNotCount) {
  AttentionCase c({1, 100, 400, 1, 1, 64, ANNULUS_BF16});
  c.kv_spans = {{0, 170, 0, 1}};
  for (int64_t row = 170; row < 400; ++row) {
    AttentionCase::FillRow(c.k(), 0, row, 0, kNaN);
    AttentionCase::FillRow(c.v(), 0, row, 0, kNaN);
  }
  TestDevice(CudaPlugin()).Attend(c);
  ExpectForwardMatches(c);
}

TEST_F(HopperForward, RowsOfTheOutputMayBeElsewhere) {
  const Shape shape = {1, 256, 256, 1, 1, 64, ANNULUS_BF16, Causal(0)};
  TestDevice device(CudaPlugin());
  AttentionCase whole(shape);
  device.Attend(whole);
  AttentionCase moved(shape);
  moved.q_spans = {{192, 64, 192, 1}};
  annulusAttendArgs args = moved.Args();
  args.o.rows = args.lse.rows = 64;
  args.o_row_offset = -192;
  device.Attend(args);
  for (size_t i = 0; i < 64; ++i) ASSERT_NEAR(moved.lse_data[i], whole.lse_data[192 + i], 1e-5);
}

}  // namespace
}  // namespace annulus::kernels
