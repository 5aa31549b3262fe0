// SPDX-License-Identifier: Apache-2.0
#include "server/ring/partition.h"

#include <gtest/gtest.h>

namespace annulus::ring {
namespace {

using Owned = std::vector<TokenRanges>;

TEST(Partition, Contiguous) {
  EXPECT_EQ(Partition(Layout::kContiguous, 10, 3), (Owned{{{0, 3}}, {{3, 6}}, {{6, 10}}}));
}

TEST(Partition, ZigzagPairsAnEarlyChunkWithALateOne) {
  EXPECT_EQ(Partition(Layout::kZigzag, 16, 2), (Owned{{{0, 4}, {12, 16}}, {{4, 12}}}));
}

TEST(Partition, StripedIsOneStridedRangePerRank) {
  EXPECT_EQ(Partition(Layout::kStriped, 10, 4),
            (Owned{{{0, 9, 4}}, {{1, 10, 4}}, {{2, 7, 4}}, {{3, 8, 4}}}));
}

TEST(Partition, FewerTokensThanRanksLeavesEmptyPieces) {
  EXPECT_EQ(Partition(Layout::kStriped, 2, 4), (Owned{{{0, 1}}, {{1, 2}}, {}, {}}));
  EXPECT_EQ(Partition(Layout::kContiguous, 1, 3), (Owned{{}, {}, {{0, 1}}}));
  EXPECT_EQ(Partition(Layout::kZigzag, 1, 2), (Owned{{{0, 1}}, {}}));
}

TEST(Partition, OneRankOwnsAllInOneRange) {
  for (const Layout layout : {Layout::kContiguous, Layout::kZigzag, Layout::kStriped}) {
    EXPECT_EQ(Partition(layout, 7, 1), (Owned{{{0, 7}}}));
  }
}

}  // namespace
}  // namespace annulus::ring
