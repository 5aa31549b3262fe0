// SPDX-License-Identifier: Apache-2.0
// Spans spelled out, cut into tiles, and who sees what, against brute force.
#include "kernels/cpu/row_map.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>

#include "kernels/cpu/thread_pool.h"

namespace annulus::kernels::cpu {
namespace {

TEST(RowMap, SpellsSpansOut) {
  const annulusSpan spans[] = {{5, 3, 100, 4}, {0, 0, 7, 1}, {1, 2, 3, 1}};
  RowMap map;
  map.Assign(spans, 3);
  EXPECT_EQ(map.rows, (std::vector<int64_t>{5, 6, 7, 1, 2}));
  EXPECT_EQ(map.positions, (std::vector<int64_t>{100, 104, 108, 3, 4}));
  EXPECT_EQ(map.rising_ends, (std::vector<int64_t>{3, 5}));
  map.Assign(spans, 1);
  EXPECT_EQ(map.size(), 3);
  EXPECT_EQ(map.rising_ends, (std::vector<int64_t>{3}));
  map.Assign(spans + 1, 1);
  EXPECT_EQ(map.size(), 0);
  EXPECT_TRUE(map.rising_ends.empty());
}

TEST(RowMap, TilesRiseAndCoverEverything) {
  std::mt19937 rng(1);
  RowMap map;
  std::vector<IndexRange> tiles;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<annulusSpan> spans;
    for (uint32_t i = 0; i < rng() % 6; ++i) {
      spans.push_back({0, static_cast<int64_t>(rng() % 20), static_cast<int64_t>(rng() % 50),
                       1 + static_cast<int64_t>(rng() % 3)});
    }
    map.Assign(spans.data(), spans.size());
    CutTiles(map, 8, &tiles);
    int64_t next = 0;
    for (const IndexRange& tile : tiles) {
      EXPECT_EQ(tile.begin, next);
      EXPECT_GE(tile.size(), 1);
      EXPECT_LE(tile.size(), 8);
      for (int64_t i = tile.begin + 1; i < tile.end; ++i) {
        EXPECT_GT(map.positions[i], map.positions[i - 1]);
      }
      next = tile.end;
    }
    EXPECT_EQ(next, map.size());
    for (size_t i = 1; i < tiles.size(); ++i) {
      const int64_t cut = tiles[i].begin;
      EXPECT_TRUE(tiles[i - 1].size() == 8 || map.positions[cut] <= map.positions[cut - 1])
          << "cut without need";
    }
  }
}

TEST(RowMap, VisibleKeysAgreeWithTheDefinition) {
  std::mt19937 rng(2);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<int64_t> keys(pick(1, 12));
    int64_t position = pick(-5, 5);
    for (int64_t& key : keys) key = position += pick(1, 4);
    const annulusMask mask = {pick(0, 1) ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL, pick(-9, 9),
                              pick(-1, 9)};
    const int64_t query = pick(-10, 50);
    const IndexRange got = VisibleKeys(mask, query, keys.data(), keys.size());
    for (int64_t i = 0; i < static_cast<int64_t>(keys.size()); ++i) {
      const bool after = keys[i] > query + mask.causal_offset;
      const bool too_old =
          mask.window_left >= 0 && keys[i] < query + mask.causal_offset - mask.window_left;
      const bool visible = !too_old && !(mask.kind == ANNULUS_MASK_CAUSAL && after);
      EXPECT_EQ(visible, i >= got.begin && i < got.end);
    }
  }
}

TEST(RowMap, VisibleKeysOfASpanAreThoseOfItsPositions) {
  std::mt19937 rng(4);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  RowMap map;
  for (int trial = 0; trial < 5000; ++trial) {
    const annulusSpan span = {0, pick(0, 12), pick(-5, 5), pick(1, 4)};
    const annulusMask mask = {pick(0, 1) ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL, pick(-9, 9),
                              pick(-1, 9)};
    const int64_t query = pick(-20, 60);
    map.Assign(&span, 1);
    const IndexRange want = VisibleKeys(mask, query, map.positions.data(), map.size());
    const IndexRange got = VisibleKeys(mask, query, span);
    EXPECT_EQ(got.begin, want.begin);
    EXPECT_EQ(got.end, want.end);
  }
}

TEST(RowMap, VisibleKeysOfRowsAreThoseOfEachRow) {
  std::mt19937 rng(3);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<int64_t> keys(pick(0, 12));
    std::vector<int64_t> queries(pick(1, 6));
    int64_t position = pick(-5, 5);
    for (int64_t& key : keys) key = position += pick(1, 4);
    const int64_t first = pick(-20, 50);
    for (int64_t& query : queries) query = first + pick(0, pick(1, 30));
    const annulusMask mask = {pick(0, 1) ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL, pick(-9, 9),
                              pick(-1, 9)};
    std::vector<IndexRange> visible(queries.size());
    const bool any = VisibleKeysOfRows(mask, queries.data(), queries.size(), keys.data(),
                                       keys.size(), visible.data());
    bool want_any = false;
    for (size_t i = 0; i < queries.size(); ++i) {
      const IndexRange want = VisibleKeys(mask, queries[i], keys.data(), keys.size());
      want_any |= want.size() > 0;
      if (!any) continue;
      EXPECT_EQ(visible[i].begin, want.begin);
      EXPECT_EQ(visible[i].end, want.end);
    }
    EXPECT_EQ(any, want_any);
  }
}

TEST(ThreadPool, RunsEveryItemOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t items = 0; items < 100; ++items) {
      std::vector<std::atomic<int>> runs(items);
      std::atomic<bool> thread_in_range = true;
      pool.Parallel(items, [&](int64_t item, int thread) {
        ++runs[item];
        if (thread < 0 || thread >= threads) thread_in_range = false;
      });
      for (const std::atomic<int>& count : runs) ASSERT_EQ(count, 1);
      EXPECT_TRUE(thread_in_range);
    }
  }
}

}  // namespace
}  // namespace annulus::kernels::cpu
