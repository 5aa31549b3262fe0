// SPDX-License-Identifier: Apache-2.0
// Masks and range algebra against counting, token by token.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "server/ring/mask.h"
#include "server/ring/partition.h"
#include "server/ring/token_ranges.h"
#include "tests/property/ring/random_spec.h"

namespace annulus::testing {
namespace {

using ring::TokenRange;
using ring::TokenRanges;

TokenRange RandomRange(Random& random) {
  const int begin = Draw(random, 0, 40);
  return {begin, begin + Draw(random, 0, 60), Draw(random, 0, 2) == 0 ? 1 : Draw(random, 1, 9)};
}

std::set<int64_t> SetOf(const TokenRanges& ranges) {
  const std::vector<int64_t> positions = ring::Positions(ranges);
  return {positions.begin(), positions.end()};
}

TEST(TokenAlgebra, CasesAndCellCountsAreExact) {
  Random random(BaseSeed());
  for (int i = 0; i < 20000; ++i) {
    const TokenRange q = RandomRange(random), kv = RandomRange(random);
    ring::Mask mask;
    mask.kind = static_cast<ring::MaskKind>(Draw(random, 0, 1));
    mask.window_left = Draw(random, 0, 1) == 0 ? -1 : Draw(random, 0, 50);
    const int64_t offset = Draw(random, -50, 50);
    uint64_t visible = 0, all = 0;
    for (const int64_t query : ring::Positions({q})) {
      for (const int64_t key : ring::Positions({kv})) {
        ++all;
        const int64_t distance = key - query - offset;
        const bool causal = mask.kind == ring::MaskKind::kFull || distance <= 0;
        const bool near = mask.window_left < 0 || distance >= -mask.window_left;
        visible += causal && near;
        ASSERT_EQ(ring::Sees(mask, offset, query, key), causal && near);
      }
    }
    SCOPED_TRACE(absl::StrCat("q ", ring::ToString({q}), " kv ", ring::ToString({kv}), " offset ",
                              offset, " window_left ", mask.window_left));
    ASSERT_EQ(static_cast<uint64_t>(ring::VisiblePairs(mask, offset, q, kv)), visible);
    const ring::MaskCase expected = visible == 0     ? ring::MaskCase::kEmpty
                                    : visible == all ? ring::MaskCase::kFull
                                                     : ring::MaskCase::kPartial;
    ASSERT_EQ(ring::CaseOf(mask, offset, q, kv), expected);
  }
}

TEST(TokenAlgebra, IntersectAndSubsetAreExact) {
  Random random(BaseSeed());
  for (int i = 0; i < 20000; ++i) {
    const TokenRange a = RandomRange(random), b = RandomRange(random);
    SCOPED_TRACE(absl::StrCat(ring::ToString({a}), " and ", ring::ToString({b})));
    const std::set<int64_t> left = SetOf({a}), right = SetOf({b});
    std::set<int64_t> both;
    std::set_intersection(left.begin(), left.end(), right.begin(), right.end(),
                          std::inserter(both, both.end()));
    ASSERT_EQ(SetOf({ring::Intersect(a, b)}), both);
    ASSERT_EQ(ring::IsSubset({a}, {b}), both == left);
  }
}

TEST(TokenAlgebra, NormaliseKeepsTheTokens) {
  Random random(BaseSeed());
  for (int i = 0; i < 20000; ++i) {
    TokenRanges ranges;
    for (int n = Draw(random, 0, 4); n > 0; --n) ranges.push_back(RandomRange(random));
    const TokenRanges normal = ring::Normalise(ranges);
    SCOPED_TRACE(ring::ToString(ranges));
    ASSERT_EQ(SetOf(normal), SetOf(ranges));
    ASSERT_EQ(ring::Normalise(normal), normal);
  }
}

TEST(TokenAlgebra, PartitionDealsEveryTokenOnceAndEvenly) {
  for (const auto layout :
       {ring::Layout::kContiguous, ring::Layout::kZigzag, ring::Layout::kStriped}) {
    for (int ranks = 1; ranks <= 9; ++ranks) {
      for (int length = 1; length <= 60; ++length) {
        std::vector<int> owners(static_cast<size_t>(length), 0);
        for (const TokenRanges& tokens : ring::Partition(layout, length, ranks)) {
          const int64_t slack = layout == ring::Layout::kZigzag ? 2 : 1;
          EXPECT_LE(std::abs(ring::TokenCount(tokens) - length / ranks), slack);
          for (const int64_t token : ring::Positions(tokens)) ++owners[static_cast<size_t>(token)];
        }
        EXPECT_EQ(std::count(owners.begin(), owners.end(), 1), length);
      }
    }
  }
}

TEST(TokenAlgebra, RowsHoldTheirTokens) {
  Random random(BaseSeed());
  for (int i = 0; i < 20000; ++i) {
    const auto layout_kind = static_cast<ring::Layout>(Draw(random, 0, 2));
    const int length = Draw(random, 1, 60);
    const TokenRanges layout = ring::Partition(layout_kind, length, Draw(random, 1, 5))[0];
    const TokenRanges tokens = ring::Intersect(layout, TokenRanges{RandomRange(random)});
    const auto spans = ring::LocateRows(layout, tokens);
    ASSERT_TRUE(spans.ok()) << spans.status();
    const std::vector<int64_t> rows = ring::Positions(layout);
    std::vector<int64_t> found;
    for (const ring::RowSpan& span : *spans) {
      for (int64_t j = 0; j < span.count; ++j) {
        found.push_back(rows[static_cast<size_t>(span.row + j)]);
        ASSERT_EQ(found.back(), span.position + j * span.stride);
      }
    }
    ASSERT_EQ(found, ring::Positions(tokens));
  }
}

}  // namespace
}  // namespace annulus::testing
