// SPDX-License-Identifier: Apache-2.0
// The order of the backward's pairs: each once, no two of a wave on the same rows, and the same
// order of contributions to every row on any number of threads.
#include "kernels/cpu/wave_order.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace annulus::kernels::cpu {
namespace {

TEST(WaveOrder, EveryPairOnceAndNoneMeetsInAWave) {
  WaveOrder order;
  for (int64_t tiles = 1; tiles <= 9; ++tiles) {
    for (int64_t blocks = 1; blocks <= 9; ++blocks) {
      order.Reset(tiles, blocks);
      std::set<std::pair<int64_t, int64_t>> pairs;
      std::set<std::pair<int32_t, int64_t>> tiles_of_wave;
      std::set<std::pair<int32_t, int64_t>> blocks_of_wave;
      int32_t wave = 0;
      for (int64_t item = 0; item < order.size(); ++item) {
        const WaveOrder::Pair pair = order.At(item);
        EXPECT_GE(pair.wave, wave);
        wave = pair.wave;
        EXPECT_TRUE(pairs.insert({pair.tile, pair.block}).second);
        EXPECT_TRUE(tiles_of_wave.insert({pair.wave, pair.tile}).second);
        EXPECT_TRUE(blocks_of_wave.insert({pair.wave, pair.block}).second);
        EXPECT_LT(pair.tile, tiles);
        EXPECT_LT(pair.block, blocks);
      }
      EXPECT_EQ(static_cast<int64_t>(pairs.size()), tiles * blocks);
    }
  }
}

// Each row keeps the list of waves that reached it, unguarded: a race or another order would show.
TEST(WaveOrder, RowsSeeTheWavesInOrderOnAnyNumberOfThreads) {
  WaveOrder order;
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const auto& [tiles, blocks] :
         {std::pair<int64_t, int64_t>(1, 7), {7, 1}, {4, 4}, {3, 8}, {8, 3}}) {
      for (int trial = 0; trial < 50; ++trial) {
        std::vector<std::vector<int32_t>> by_tile(tiles);
        std::vector<std::vector<int32_t>> by_block(blocks);
        order.Reset(tiles, blocks);
        pool.Parallel(order.size(), [&](int64_t item, int) {
          const WaveOrder::Pair pair = order.At(item);
          order.Begin(pair);
          by_tile[pair.tile].push_back(pair.wave);
          by_block[pair.block].push_back(pair.wave);
          order.End(pair);
        });
        for (const auto& waves : by_tile) {
          EXPECT_EQ(static_cast<int64_t>(waves.size()), blocks);
          EXPECT_TRUE(std::is_sorted(waves.begin(), waves.end()));
        }
        for (const auto& waves : by_block) {
          EXPECT_EQ(static_cast<int64_t>(waves.size()), tiles);
          EXPECT_TRUE(std::is_sorted(waves.begin(), waves.end()));
        }
      }
    }
  }
}

}  // namespace
}  // namespace annulus::kernels::cpu
