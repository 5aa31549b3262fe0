// SPDX-License-Identifier: Apache-2.0
// What blocks of a persistent grid work on, and the walks over tiles, against brute force.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "kernels/cuda/launch_plan.h"
#include "kernels/cuda/sm90/key_walk.h"
#include "kernels/cuda/sm90/query_walk.h"
#include "kernels/cuda/sm90/unit_order.h"

namespace annulus::kernels::cuda {
namespace {

int Pick(std::mt19937& rng, int low, int high) {
  return std::uniform_int_distribution(low, high)(rng);
}

TEST(UnitOrder, EveryUnitIsOnOneBlockOnce) {
  std::mt19937 rng(1);
  for (int trial = 0; trial < 300; ++trial) {
    const int kv_heads = Pick(rng, 1, 4);
    const int batch = Pick(rng, 1, 3);
    const UnitOrder order = {Pick(rng, 1, 20), Pick(rng, 1, 4), kv_heads, batch * kv_heads,
                             Pick(rng, 1, batch * kv_heads)};
    const int blocks = Pick(rng, 1, 40);
    std::set<std::tuple<int, int, int>> seen;
    for (int block = 0; block < blocks; ++block) {
      for (int round = 0; IndexOfRound(round, block, blocks) < order.Units(); ++round) {
        const OrderedUnit unit =
            UnitAt(order, static_cast<int32_t>(IndexOfRound(round, block, blocks)));
        ASSERT_EQ(unit.kv_head, unit.head / order.heads_each);
        ASSERT_TRUE(unit.tile >= 0 && unit.tile < order.tiles && unit.head >= 0 &&
                    unit.head < kv_heads * order.heads_each && unit.batch >= 0 &&
                    unit.batch < batch);
        ASSERT_TRUE(seen.insert({unit.tile, unit.head, unit.batch}).second);
      }
    }
    ASSERT_EQ(static_cast<int>(seen.size()), order.Units());
  }
}

// Units whose work grows with their tile, as under a causal mask: no block has much more than the
// mean, and units that run together are of few KV heads.
TEST(UnitOrder, BlocksAreEvenlyLoadedAndShareKeys) {
  const UnitOrder order = {64, 4, 8, 8, 8};
  constexpr int kBlocks = 132;
  int64_t most = 0;
  int64_t all = 0;
  for (int block = 0; block < kBlocks; ++block) {
    int64_t work = 0;
    for (int round = 0; IndexOfRound(round, block, kBlocks) < order.Units(); ++round) {
      work += 1 + UnitAt(order, static_cast<int32_t>(IndexOfRound(round, block, kBlocks))).tile;
    }
    most = std::max(most, work);
    all += work;
  }
  EXPECT_LT(static_cast<double>(most) * kBlocks, 1.03 * static_cast<double>(all));
  const UnitOrder sections = {64, 4, 8, 8, 1};
  std::set<int> kv_heads;
  for (int32_t index = 0; index < kBlocks; ++index) {
    kv_heads.insert(UnitAt(sections, index).kv_head);
  }
  EXPECT_EQ(kv_heads.size(), 1u);
}

struct Walked {
  std::map<int64_t, int> seen_by_row;  // of the tensor: by how many queries
  int partial = 0;
  int full = 0;
};

Walked WalkAll(const SegmentList& keys, const annulusMask& mask, const Tile& queries) {
  Walked walked;
  KeyWalk walk(keys, mask, queries);
  const auto visit = [&](bool full) {
    for (int32_t i = 0; i < queries.rows; ++i) {
      const Interval seen = walk.RowsSeen(queries.PositionOf(i));
      for (int32_t row = 0; row < kWalkKeys; ++row) {
        EXPECT_TRUE(!full || seen.Holds(row));
        if (seen.Holds(row)) ++walked.seen_by_row[walk.row() + row];
      }
    }
  };
  for (; walk.NextPartial(); ++walked.partial) visit(false);
  for (; walk.NextFull(); ++walked.full) visit(true);
  return walked;
}

TEST(KeyWalk, EveryPairThatSeesIsInOneTile) {
  std::mt19937 rng(2);
  for (int trial = 0; trial < 150; ++trial) {
    std::vector<annulusSpan> spans;
    for (int i = Pick(rng, 1, 4), row = 0; i > 0; --i) {
      const int count = Pick(rng, 1, 500);
      spans.push_back({row, count, Pick(rng, -600, 600), Pick(rng, 1, 3)});
      row += count;
    }
    const Tile queries = {0, Pick(rng, -300, 600), Pick(rng, 1, 3), Pick(rng, 1, 20)};
    const annulusMask mask = {trial % 4 == 0 ? ANNULUS_MASK_FULL : ANNULUS_MASK_CAUSAL,
                              Pick(rng, -200, 400), trial % 3 == 0 ? -1 : Pick(rng, 0, 500)};
    const SegmentList keys = SegmentLists(spans.data(), spans.size(), kWalkKeys).at(0);
    std::map<int64_t, int> want;
    for (const annulusSpan& span : spans) {
      for (int64_t i = 0; i < span.count; ++i) {
        const int64_t position = span.position + i * span.stride;
        for (int32_t query = 0; query < queries.rows; ++query) {
          const SeenPositions seen = PositionsSeen(mask, queries.PositionOf(query));
          if (seen.begin <= position && position < seen.end) ++want[span.row + i];
        }
      }
    }
    const Walked walked = WalkAll(keys, mask, queries);
    ASSERT_EQ(walked.seen_by_row, want) << "trial " << trial;
    const KeyCount count = CountKeyTiles(keys, mask, queries);
    EXPECT_EQ(count.partial, walked.partial);
    EXPECT_EQ(count.full, walked.full);
  }
}

// Under a causal mask of aligned tiles one tile of keys is cut by the diagonal, and no other.
TEST(KeyWalk, OnlyTheDiagonalIsPartial) {
  const annulusSpan span = {0, 4096, 0, 1};
  const SegmentList keys = SegmentLists(&span, 1, kWalkKeys).at(0);
  const annulusMask causal = {ANNULUS_MASK_CAUSAL, 0, -1};
  for (int32_t tile = 0; tile < 32; ++tile) {
    const KeyCount count = CountKeyTiles(keys, causal, {128 * tile, 128 * tile, 1, 128});
    EXPECT_EQ(count.partial, 1);
    EXPECT_EQ(count.full, tile);
  }
}

TEST(KeyWalk, WhatDoesNotFit) {
  EXPECT_TRUE(FitsWalk({0, -(int64_t{1} << 50), 1000, 2'000'000, 0}));
  EXPECT_FALSE(FitsWalk({0, 0, 1000, 3'000'000, 0}));
  EXPECT_FALSE(FitsWalk({int64_t{1} << 31, 0, 1, 1, 0}));
  EXPECT_FALSE(FitsWalk({0, 0, int64_t{1} << 40, 1, 0}));
}

SegmentList RandomSegments(std::mt19937& rng, int tile_rows) {
  std::vector<annulusSpan> spans;
  for (int i = Pick(rng, 1, 3), row = 0; i > 0; --i) {
    const int count = Pick(rng, 1, 300);
    spans.push_back({row, count, Pick(rng, -400, 400), Pick(rng, 1, 3)});
    row += count;
  }
  return SegmentLists(spans.data(), spans.size(), tile_rows).at(0);
}

bool SeesAll(const annulusMask& mask, const Tile& queries, const Tile& keys) {
  for (int32_t i = 0; i < queries.rows; ++i) {
    const Interval seen = VisibleKeys(mask, queries.PositionOf(i), keys);
    if (seen.begin > 0 || seen.end < keys.rows) return false;
  }
  return true;
}

// Who walks from the keys and who counts from the queries agree on every pair of tiles.
TEST(QueryWalk, BothSidesNameThePairsThatSeeSomething) {
  constexpr int kQueryRows = 64;
  constexpr int kKeyRows = 128;
  std::mt19937 rng(4);
  for (int trial = 0; trial < 200; ++trial) {
    const SegmentList queries = RandomSegments(rng, kQueryRows);
    const SegmentList keys = RandomSegments(rng, kKeyRows);
    const annulusMask mask = {trial % 4 == 0 ? ANNULUS_MASK_FULL : ANNULUS_MASK_CAUSAL,
                              Pick(rng, -200, 400), trial % 3 == 0 ? -1 : Pick(rng, 0, 400)};
    for (int32_t key_tile = 0; key_tile < keys.tiles; ++key_tile) {
      SCOPED_TRACE(testing::Message() << "trial " << trial << " tile of keys " << key_tile);
      const Tile own = TileAt(keys, key_tile);
      QueryWalk walk(queries, mask, kKeyRows, [&own] { return own; });
      for (auto tile = static_cast<int32_t>(queries.tiles) - 1; tile >= 0; --tile) {
        const Tile theirs = TileAt(queries, tile);
        const bool needed = !SeesNothing(mask, theirs, own);
        int counted = 0;
        for (int i = 0; i < keys.count; ++i) {
          const auto in_segment = key_tile - static_cast<int32_t>(keys.segments[i].first_tile);
          counted += FirstKeyTile(keys.segments[i], kKeyRows, mask, theirs) <= in_segment &&
                     in_segment < EndKeyTile(keys.segments[i], kKeyRows, mask, theirs);
        }
        ASSERT_EQ(counted, needed ? 1 : 0) << "tile of queries " << tile;
        if (!needed) continue;
        ASSERT_TRUE(walk.Next());
        ASSERT_EQ(walk.tile(), tile);
        ASSERT_EQ(walk.row(), theirs.row);
        ASSERT_EQ(walk.rows(), theirs.rows);
        const bool whole =
            own.rows == kKeyRows && theirs.rows == kQueryRows && SeesAll(mask, theirs, own);
        ASSERT_EQ(walk.IsWhole(), whole);
      }
      ASSERT_FALSE(walk.Next());
    }
  }
}

}  // namespace
}  // namespace annulus::kernels::cuda
