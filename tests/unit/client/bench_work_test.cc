// SPDX-License-Identifier: Apache-2.0
// What `annulus bench` computes: FLOPs by brute force, limits, statistics.
#include <gtest/gtest.h>

#include "client/cli/bench/attention_work.h"
#include "client/cli/bench/statistics.h"
#include "server/ring/mask.h"

namespace annulus::cli::bench {
namespace {

AttentionShape ShapeOf(int64_t query_length, int64_t kv_length, ring::Mask mask) {
  AttentionShape shape;
  shape.problem.batch = 3;
  shape.problem.query_length = query_length;
  shape.problem.kv_length = kv_length;
  shape.problem.query_heads = 6;
  shape.problem.kv_heads = 2;
  shape.problem.head_dim = 40;
  shape.mask = mask;
  return shape;
}

// One pair after the other, of every head of every sequence: a product and a sum for q.k and for
// p.v each.
double CountedForwardFlops(const AttentionShape& shape) {
  const Problem& p = shape.problem;
  const int64_t offset = p.kv_length - p.query_length;
  double flops = 0;
  for (int64_t query = 0; query < p.query_length; ++query) {
    for (int64_t key = 0; key < p.kv_length; ++key) {
      const int64_t distance = key - (query + offset);
      const bool seen = (shape.mask.kind == ring::MaskKind::kFull || distance <= 0) &&
                        (shape.mask.window_left < 0 || distance >= -shape.mask.window_left);
      if (seen) flops += 4.0 * p.head_dim;
    }
  }
  return flops * static_cast<double>(p.batch) * p.query_heads;
}

TEST(Flops, AreThoseOfTheUnmaskedPairs) {
  for (const ring::Mask& mask : {ring::Mask{ring::MaskKind::kFull, -1},
                                 {ring::MaskKind::kCausal, -1},
                                 {ring::MaskKind::kCausal, 5}}) {
    for (const auto& [query_length, kv_length] :
         {std::pair<int64_t, int64_t>{1, 1}, {64, 64}, {1, 37}, {37, 1}, {20, 50}, {50, 20}}) {
      const AttentionShape shape = ShapeOf(query_length, kv_length, mask);
      const double forward = CountedForwardFlops(shape);
      EXPECT_EQ(Flops(shape, ring::Direction::kForward), forward)
          << query_length << " x " << kv_length;
      EXPECT_EQ(Flops(shape, ring::Direction::kBackward), 2.5 * forward);
    }
  }
}

TEST(KvBytes, CountsEachKvHeadOnce) {
  AttentionShape shape = ShapeOf(1, 100, {});
  EXPECT_EQ(KvBytes(shape), 2 * 3 * 100 * 2 * 40 * 4);
  shape.problem.dtype = client::DataType::kBf16;
  EXPECT_EQ(KvBytes(shape), 2 * 3 * 100 * 2 * 40 * 2);
}

TEST(TensorBytes, AddsTheGradientsWithBackward) {
  const AttentionShape shape = ShapeOf(10, 100, {});
  const double q = 3 * 10 * 6 * 40 * 4;
  const double k = 3 * 100 * 2 * 40 * 4;
  const double lse = 3 * 10 * 6 * 4;
  EXPECT_EQ(TensorBytes(shape, false), 2 * q + 2 * k + lse);
  EXPECT_EQ(TensorBytes(shape, true), 4 * q + 4 * k + 2 * lse);
}

TEST(MemoryLimit, IsTheShareThatReadingLeaves) {
  // 100 bytes at 50 a second take 2 s, in which 1000 a second could do 2000.
  EXPECT_EQ(MemoryLimit(500, 100, 1000, 50), 0.25);
  EXPECT_EQ(MemoryLimit(2000, 100, 1000, 50), 1);
  EXPECT_EQ(MemoryLimit(1e9, 100, 1000, 50), 1);
}

TEST(SpreadOf, OddEvenAndOne) {
  const Spread odd = SpreadOf({5, 1, 4});
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.median, 4);
  EXPECT_EQ(odd.max, 5);
  EXPECT_EQ(SpreadOf({4, 1, 2, 8}).median, 3);
  const Spread one = SpreadOf({7});
  EXPECT_EQ(one.min, 7);
  EXPECT_EQ(one.median, 7);
  EXPECT_EQ(one.max, 7);
}

}  // namespace
}  // namespace annulus::cli::bench
