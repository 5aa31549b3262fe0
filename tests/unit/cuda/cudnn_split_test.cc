// SPDX-License-Identifier: Apache-2.0
// What of a call goes to cuDNN: every allowed pair once, nothing else, and as much as can.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/cuda/cudnn/split.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels::cuda {
namespace {

constexpr int64_t kRows = 700;  // of q and of k at most
// How often each (row of q, row of k) is computed.
using Pairs = std::vector<uint8_t>;

bool Allowed(const annulusMask& mask, int64_t query, int64_t key) {
  const int64_t last = query + mask.causal_offset;
  if (mask.kind == ANNULUS_MASK_CAUSAL && key > last) return false;
  return mask.window_left < 0 || key >= last - mask.window_left;
}

void CountSpans(const annulusMask& mask, const annulusSpan& q, const annulusSpan& kv,
                Pairs* pairs) {
  for (int64_t i = 0; i < q.count; ++i) {
    for (int64_t j = 0; j < kv.count; ++j) {
      if (Allowed(mask, q.position + i * q.stride, kv.position + j * kv.stride)) {
        ++(*pairs)[(q.row + i) * kRows + kv.row + j];
      }
    }
  }
}

Pairs Covered(const CallSplit& split, const annulusMask& mask) {
  Pairs pairs(kRows * kRows);
  for (const CudnnPiece& piece : split.cudnn) {
    for (int64_t i = 0; i < piece.q_rows; ++i) {
      const int64_t keys = piece.causal ? std::min(i + 1, piece.kv_rows) : piece.kv_rows;
      for (int64_t j = 0; j < keys; ++j) ++pairs[(piece.q_row + i) * kRows + piece.kv_row + j];
    }
  }
  for (const PortablePiece& piece : split.portable) CountSpans(mask, piece.q, piece.kv, &pairs);
  return pairs;
}

CallSplit Split(const std::vector<annulusSpan>& q, const std::vector<annulusSpan>& kv,
                const annulusMask& mask) {
  return SplitCall(q.data(), q.size(), kv.data(), kv.size(), mask);
}

TEST(CudnnSplit, EveryAllowedPairOnce) {
  std::mt19937 rng(11);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  auto spans = [&] {
    std::vector<annulusSpan> made;
    int64_t row = pick(0, 3);
    for (int i = pick(0, 3); i >= 0; --i) {
      made.push_back({row, pick(0, 5) == 0 ? pick(0, 2) : pick(50, 160), pick(0, 300), pick(1, 3)});
      row += made.back().count + (pick(0, 1) == 0 ? 0 : pick(1, 4));
    }
    return made;
  };
  int cudnn = 0;
  int portable = 0;
  const int trials = kUnderSanitizer ? 60 : 400;
  for (int trial = 0; trial < trials; ++trial) {
    const annulusMask masks[] = {Full(), Causal(pick(-200, 200)), Causal(0), Full(pick(0, 200)),
                                 Causal(pick(-50, 50), pick(0, 300))};
    const annulusMask mask = masks[trial % 5];
    const std::vector<annulusSpan> q = spans();
    const std::vector<annulusSpan> kv = spans();
    const CallSplit split = Split(q, kv, mask);
    Pairs want(kRows * kRows);
    for (const annulusSpan& q_span : q) {
      for (const annulusSpan& kv_span : kv) CountSpans(mask, q_span, kv_span, &want);
    }
    ASSERT_TRUE(Covered(split, mask) == want) << "trial " << trial;
    for (const CudnnPiece& piece : split.cudnn) {
      ASSERT_GE(std::min(piece.q_rows, piece.kv_rows), kCudnnRowsMin);
    }
    cudnn += static_cast<int>(split.cudnn.size());
    portable += static_cast<int>(split.portable.size());
  }
  EXPECT_GT(cudnn, trials / 4);  // both ways are taken often
  EXPECT_GT(portable, trials / 4);
}

// A rank of a causal zigzag ring: one diagonal for each of its chunks in the step with its own
// keys, and afterwards one rectangle a step.
TEST(CudnnSplit, AZigzagStepIsOneRectangle) {
  const std::vector<annulusSpan> own = {{0, 100, 200, 1}, {100, 100, 500, 1}};
  const CallSplit first = Split(own, own, Causal(0));
  ASSERT_EQ(first.cudnn.size(), 3u);
  EXPECT_TRUE(first.cudnn[0].causal);
  EXPECT_FALSE(first.cudnn[1].causal);
  EXPECT_TRUE(first.cudnn[2].causal);
  const CallSplit inner = Split(own, {{0, 100, 300, 1}, {100, 100, 400, 1}}, Causal(0));
  ASSERT_EQ(inner.cudnn.size(), 1u);
  EXPECT_EQ(inner.cudnn[0].q_row, 100);
  EXPECT_EQ(inner.cudnn[0].kv_rows, 200);
  const CallSplit outer = Split(own, {{0, 100, 100, 1}, {100, 100, 600, 1}}, Causal(0));
  ASSERT_EQ(outer.cudnn.size(), 1u);
  EXPECT_EQ(outer.cudnn[0].q_rows, 200);
  EXPECT_EQ(outer.cudnn[0].kv_rows, 100);
  EXPECT_TRUE(first.portable.empty() && inner.portable.empty() && outer.portable.empty());
}

// Striped shards see all diagonals shifted by one at most.
TEST(CudnnSplit, AStripedStepIsOneDiagonal) {
  for (const int64_t owner : {0, 1, 2, 3}) {
    const CallSplit split = Split({{0, 100, 2, 4}}, {{0, 100, owner, 4}}, Causal(0));
    ASSERT_EQ(split.cudnn.size(), 1u);
    EXPECT_TRUE(split.cudnn[0].causal);
    EXPECT_EQ(split.cudnn[0].q_row, owner > 2 ? 1 : 0);
    EXPECT_TRUE(split.portable.empty());
  }
}

TEST(CudnnSplit, WhatIsPortable) {
  EXPECT_TRUE(Split({{0, 63, 0, 1}}, {{0, 500, 0, 1}}, Full()).cudnn.empty());
  EXPECT_TRUE(Split({{0, 500, 0, 1}}, {{0, 63, 0, 1}}, Full()).cudnn.empty());
  EXPECT_TRUE(Split({{0, 500, 0, 1}}, {{0, 500, 0, 1}}, Causal(0, 100)).cudnn.empty());
  EXPECT_TRUE(Split({{0, 500, 0, 2}}, {{0, 500, 0, 1}}, Causal(0)).cudnn.empty());
  // A window that hides nothing is none.
  EXPECT_TRUE(Split({{0, 100, 100, 1}}, {{0, 100, 0, 1}}, Causal(0, 200)).portable.empty());
  const CallSplit nothing = Split({{0, 100, 0, 1}}, {{0, 100, 100, 1}}, Causal(0));
  EXPECT_TRUE(nothing.cudnn.empty() && nothing.portable.empty());
}

}  // namespace
}  // namespace annulus::kernels::cuda
