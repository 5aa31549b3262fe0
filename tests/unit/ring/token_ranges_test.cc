// SPDX-License-Identifier: Apache-2.0
#include "server/ring/token_ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/ring/mask.h"

namespace annulus::ring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(TokenRanges, IntersectionOfCoprimeStridesIsExactAtTheLargestLengths) {
  const TokenRange odd_stride{1, kMaxTokens, 999983};
  const TokenRange other{2, kMaxTokens, 1000003};
  const TokenRange common = Intersect(odd_stride, other);
  ASSERT_GT(common.count(), 0);
  EXPECT_TRUE(Contains(odd_stride, common.begin));
  EXPECT_TRUE(Contains(other, common.begin));
  EXPECT_EQ(common.count(), (kMaxTokens - 1 - common.begin) / (int64_t{999983} * 1000003) + 1);
}

TEST(TokenRanges, RowsOfAStripedSlot) {
  const auto spans = LocateRows({{1, 62, 4}}, {{9, 22, 4}});
  ASSERT_TRUE(spans.ok());
  EXPECT_THAT(*spans, ElementsAre(RowSpan{2, 4, 9, 4}));
}

TEST(TokenRanges, RowsOfASecondRange) {
  const auto spans = LocateRows({{0, 4}, {12, 16}}, {{13, 15}});
  ASSERT_TRUE(spans.ok());
  EXPECT_THAT(*spans, ElementsAre(RowSpan{5, 2, 13, 1}));
}

TEST(TokenRanges, RowsKeepTheOrderOfTheTokens) {
  const auto spans = LocateRows({{0, 4}, {12, 16}}, {{12, 16}, {0, 2}});
  ASSERT_TRUE(spans.ok());
  EXPECT_THAT(*spans, ElementsAre(RowSpan{4, 4, 12, 1}, RowSpan{0, 2, 0, 1}));
}

TEST(TokenRanges, AMissingTokenIsNamed) {
  const auto spans = LocateRows({{0, 4}}, {{2, 6}});
  EXPECT_EQ(spans.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(spans.status().message()), HasSubstr("token 4"));
}

TEST(TokenRanges, TooManyRunsAreRefused) {
  const auto spans = LocateRows({{0, kMaxTokens}}, {{0, kMaxTokens, 2}});
  EXPECT_EQ(spans.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(Mask, CellsOfTheWholeAttention) {
  const Mask causal{MaskKind::kCausal, -1};
  EXPECT_EQ(UnmaskedCells(causal, 1000, 1000), 1000.0 * 1001 / 2);
  EXPECT_EQ(UnmaskedCells({MaskKind::kFull, -1}, 30, 50), 1500);
  // Bottom-right: the last query sees every key, the first one 21 of them.
  EXPECT_EQ(UnmaskedCells(causal, 30, 50), 30 * 20 + 30.0 * 31 / 2);
  // More queries than keys: the first ten see nothing.
  EXPECT_EQ(UnmaskedCells(causal, 30, 20), 20.0 * 21 / 2);
  EXPECT_EQ(UnmaskedCells({MaskKind::kCausal, 0}, 30, 30), 30);
  EXPECT_NEAR(UnmaskedCells(causal, kMaxTokens, kMaxTokens), 0.5 * 0x1p80, 0x1p50);
}

TEST(Mask, StripedTilesUnderANarrowWindowAreEmptyWhereNoPairMeets) {
  const Mask window{MaskKind::kCausal, 1};
  // Keys two positions after each query's left neighbour: distances 2 mod 4 only.
  EXPECT_EQ(CaseOf(window, 0, TokenRange{0, 64, 4}, TokenRange{2, 64, 4}), MaskCase::kEmpty);
  EXPECT_EQ(CaseOf(window, 0, TokenRange{0, 64, 4}, TokenRange{3, 64, 4}), MaskCase::kPartial);
}

}  // namespace
}  // namespace annulus::ring
