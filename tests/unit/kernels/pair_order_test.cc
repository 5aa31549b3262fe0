// SPDX-License-Identifier: Apache-2.0
// The order of the backward's pairs: each once, and the same order of contributions to every row on
// any number of threads.
#include "kernels/cpu/pair_order.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace annulus::kernels::cpu {
namespace {

using Place = std::pair<int64_t, int64_t>;  // a tile or a block of a head

std::vector<int64_t> UpTo(int64_t count) {
  std::vector<int64_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

TEST(PairOrder, EveryPairComesAfterThoseItWaitsFor) {
  PairOrder order;
  for (int64_t heads = 1; heads <= 3; ++heads) {
    for (int64_t tiles = 1; tiles <= 7; ++tiles) {
      for (int64_t blocks = 1; blocks <= 7; ++blocks) {
        for (int64_t threads = 1; threads <= 9; ++threads) {
          order.Reset(heads, tiles, blocks, threads);
          std::map<Place, std::vector<int64_t>> of_tile;
          std::map<Place, std::vector<int64_t>> of_block;
          for (int64_t item = 0; item < order.size(); ++item) {
            const PairOrder::Pair pair = order.At(item);
            of_tile[{pair.head, pair.tile}].push_back(pair.block);
            of_block[{pair.head, pair.block}].push_back(pair.tile);
          }
          ASSERT_EQ(static_cast<int64_t>(of_tile.size()), heads * tiles);
          ASSERT_EQ(static_cast<int64_t>(of_block.size()), heads * blocks);
          for (const auto& [place, met] : of_tile) EXPECT_EQ(met, UpTo(blocks));
          for (const auto& [place, met] : of_block) EXPECT_EQ(met, UpTo(tiles));
        }
      }
    }
  }
}

TEST(PairOrder, WithAHeadForEachThreadItsTileStaysWhileBlocksPassBy) {
  PairOrder order;
  order.Reset(/*heads=*/2, /*tiles=*/5, /*blocks=*/6, /*threads=*/2);
  for (int64_t item = 0; item < order.size(); ++item) {
    EXPECT_EQ(order.At(item).head, item % 2);
    EXPECT_EQ(order.At(item).tile, item / 12);
  }
}

// Each row keeps the list of who reached it, unguarded: a race or another order would show.
TEST(PairOrder, RowsAreReachedInOneOrderOnAnyNumberOfThreads) {
  PairOrder order;
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const auto& [heads, tiles, blocks] :
         {std::array<int64_t, 3>{1, 1, 7}, {1, 7, 1}, {2, 4, 4}, {3, 3, 8}, {1, 8, 3}}) {
      for (int trial = 0; trial < 50; ++trial) {
        std::vector<std::vector<int64_t>> of_tile(heads * tiles);
        std::vector<std::vector<int64_t>> of_block(heads * blocks);
        order.Reset(heads, tiles, blocks, threads);
        pool.Parallel(order.size(), [&](int64_t item, int) {
          const PairOrder::Pair pair = order.At(item);
          order.Begin(pair);
          of_tile[pair.head * tiles + pair.tile].push_back(pair.block);
          of_block[pair.head * blocks + pair.block].push_back(pair.tile);
          order.End(pair);
        });
        for (const auto& met : of_tile) EXPECT_EQ(met, UpTo(blocks));
        for (const auto& met : of_block) EXPECT_EQ(met, UpTo(tiles));
      }
    }
  }
}

}  // namespace
}  // namespace annulus::kernels::cpu
