// SPDX-License-Identifier: Apache-2.0
// The emulated block does what a block does, and shows what would be wrong on one.
#include "tests/unit/cuda/block_emulator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/cuda/portable/matrix_tile.h"

namespace annulus::kernels::cuda {
namespace {

TEST(BlockEmulator, ABarrierMakesWritesSeenAndAMissingOneShows) {
  constexpr int kThreads = 64;
  for (const bool barrier : {true, false}) {
    std::vector<float> seen(kThreads);
    BlockEmulator(kThreads, kThreads * sizeof(float)).Run(7, [&](EmulatedThread& t) {
      EXPECT_EQ(t.block(), 7);
      t.shared()[t.thread()] = static_cast<float>(t.thread());
      if (barrier) t.Sync();
      seen[t.thread()] = t.shared()[(t.thread() + 1) % kThreads];
    });
    bool right = true;
    for (int i = 0; i < kThreads; ++i) right = right && seen[i] == (i + 1) % kThreads;
    EXPECT_EQ(right, barrier);
  }
}

TEST(BlockEmulator, WarpsExchangeAmongThemselves) {
  BlockEmulator(64, 0).Run(0, [](EmulatedThread& t) {
    const int warp = t.thread() / 32 * 32;
    for (int round = 0; round < 3; ++round) {
      const float value = static_cast<float>(100 * round + t.thread());
      EXPECT_EQ(t.ShuffleXor(value, 5), 100 * round + (t.thread() ^ 5));
      EXPECT_EQ(t.ShuffleFrom(value, 9), 100 * round + warp + 9);
    }
    EXPECT_TRUE(t.SyncOr(t.thread() == 40));
    EXPECT_FALSE(t.SyncOr(false));
  });
}

TEST(BlockEmulator, ThreadsThatPartWaysAreTold) {
  EXPECT_DEATH(BlockEmulator(32, 0).Run(0,
                                        [](EmulatedThread& t) {
                                          if (t.thread() != 3) t.Sync();
                                        }),
               "thread 3 waits at another barrier");
}

// c += a b with the fragments filled as "Matrix fragments for mma.m16n8k16" in the PTX manual has
// it: element i of a lane's a, b and c.
TEST(BlockEmulator, MatrixProductOfFragments) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  uint16_t a[16][16];
  uint16_t b[16][8];
  for (auto& row : a) {
    for (uint16_t& value : row) value = FloatToBf16(normal(rng));
  }
  for (auto& row : b) {
    for (uint16_t& value : row) value = FloatToBf16(normal(rng));
  }
  BlockEmulator(32, 0).Run(0, [&](EmulatedThread& t) {
    const int group = t.thread() >> 2;
    const int place = t.thread() % 4;
    uint16_t a_elements[8];
    uint16_t b_elements[4];
    for (int i = 0; i < 8; ++i) {
      const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
      const int column = place * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      a_elements[i] = a[row][column];
    }
    for (int i = 0; i < 4; ++i) {
      b_elements[i] = b[place * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group];
    }
    const uint32_t a_words[4] = {Pair(a_elements), Pair(a_elements + 2), Pair(a_elements + 4),
                                 Pair(a_elements + 6)};
    const uint32_t b_words[2] = {Pair(b_elements), Pair(b_elements + 2)};
    float c[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    t.Mma<Bf16>(a_words, b_words, c);
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? group : group + 8;
      const int column = place * 2 + (i & 1);
      double want = 1.0;
      for (int k = 0; k < 16; ++k) {
        want += static_cast<double>(Bf16ToFloat(a[row][k])) * Bf16ToFloat(b[k][column]);
      }
      EXPECT_NEAR(c[i], want, 1e-5);
    }
  });
}

}  // namespace
}  // namespace annulus::kernels::cuda
