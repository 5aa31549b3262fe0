// SPDX-License-Identifier: Apache-2.0
// Every mistake that a Hopper kernel is known for is caught by the emulated block: by name, or by a
// result that is not a number.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "tests/unit/cuda/emulated_tensor_map.h"
#include "tests/unit/cuda/hopper_emulator.h"

namespace annulus::kernels::cuda {
namespace {

constexpr uint32_t kBarrier = kSharedBase;
constexpr uint32_t kTile = kSharedBase + 1024;

class HopperHazards : public testing::Test {
 protected:
  HopperHazards() : ones_(64 * 64, FloatToBf16(1.0f)) {
    map_ = *EncodeEmulatedMap({ContiguousTensor(ones_.data(), ANNULUS_BF16, 1, 64, 1, 64), 64});
  }

  static void Run(const std::function<void(HopperThread&)>& body, int threads = 128) {
    HopperEmulator(threads, 32 << 10, 4).Run(0, 1, body);
  }
  static void Init(HopperThread& t, int arrivals = 1) {
    if (t.thread() == 0) {
      t.BarrierInit(kBarrier, arrivals);
      t.FenceBarrierInit();
    }
    t.Sync();
  }
  void Load(HopperThread& t, uint32_t to = kTile) const {
    if (t.thread() != 0) return;
    t.BarrierArriveExpect(kBarrier, 8192);
    t.LoadPanel(map_, kBarrier, to, 0, 0, 0, 0);
  }
  // d = 16 of every element, if the tile is there.
  static void Multiply(HopperThread& t, float (&d)[32]) {
    t.MultiplyShared<Bf16, 64, Major::kDepth, Major::kDepth>(d, DepthMajor(kTile),
                                                             DepthMajor(kTile), false);
  }

  std::vector<uint16_t> ones_;
  TensorMap map_;
};

using HopperHazardsDeathTest = HopperHazards;

TEST_F(HopperHazards, WhatIsRightIsRight) {
  Run([&](HopperThread& t) {
    Init(t);
    Load(t);
    t.BarrierWait(kBarrier, 0);
    float d[32];
    t.MatrixFence(d);
    Multiply(t, d);
    t.MatrixCommit();
    t.MatrixWait<0>(d);
    EXPECT_EQ(d[31], 16.0f);
  });
}

TEST_F(HopperHazards, AProductThatIsNotWaitedForIsNotANumber) {
  Run([&](HopperThread& t) {
    Init(t);
    Load(t);
    t.BarrierWait(kBarrier, 0);
    float d[32];
    t.MatrixFence(d);
    Multiply(t, d);
    t.MatrixCommit();
    t.MatrixWait<1>();  // one too many left
    EXPECT_TRUE(std::isnan(d[0]));
    t.MatrixWait<0>(d);
  });
}

TEST_F(HopperHazards, AStageOverwrittenTooEarlyIsNotANumber) {
  Run([&](HopperThread& t) {
    Init(t);
    Load(t);
    t.BarrierWait(kBarrier, 0);
    float d[32];
    t.MatrixFence(d);
    Multiply(t, d);
    t.MatrixCommit();
    t.Sync();
    Load(t);  // before the wait
    t.MatrixWait<0>(d);
    EXPECT_TRUE(std::isnan(d[0]));
    t.BarrierWait(kBarrier, 1);
  });
}

TEST_F(HopperHazards, ASourceOverwrittenTooEarlyIsStoredSo) {
  alignas(16) float stored[4] = {};
  Run([&](HopperThread& t) {
    if (t.thread() != 0) return;
    t.StoreWord(kTile, 0);
    for (uint32_t i = 1; i < 4; ++i) t.StoreWord(kTile + 4 * i, 0);
    t.FenceAsync();
    t.StoreBulk(stored, kTile, 16);
    t.CommitBulk();
    t.StoreWord(kTile, 0x3f800000);  // before the wait
    t.FenceAsync();
    t.WaitBulk<0>();
  });
  EXPECT_EQ(stored[0], 1.0f);
}

TEST_F(HopperHazardsDeathTest, LoadsAndFences) {
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 Init(t);
                 Load(t);
                 t.Sync();
                 float d[32];
                 t.MatrixFence(d);
                 Multiply(t, d);
               }),
               "used while a load into it is under way");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 Init(t);
                 Load(t);
               }),
               "ended with loads under way");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 if (t.thread() == 0) t.BarrierInit(kBarrier, 1);
                 t.Sync();
                 Load(t);
               }),
               "without FenceBarrierInit");
  EXPECT_DEATH(Run([&](HopperThread& t) { t.BarrierWait(kBarrier, 0); }), "never initialised");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 for (uint32_t i = t.thread(); i < 2048; i += 128) t.StoreWord(kTile + 4 * i, 0);
                 t.Sync();
                 float d[32];
                 t.MatrixFence(d);
                 Multiply(t, d);
                 t.MatrixCommit();
                 t.MatrixWait<0>(d);
               }),
               "without that thread's FenceAsync");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 Init(t);
                 Load(t, kTile + 128);
               }),
               "not a multiple of 1024");
}

TEST_F(HopperHazardsDeathTest, Products) {
  const auto run = [&](const std::function<void(HopperThread&, float(&)[32])>& rest) {
    Run([&](HopperThread& t) {
      Init(t);
      Load(t);
      t.BarrierWait(kBarrier, 0);
      float d[32] = {};
      rest(t, d);
    });
  };
  EXPECT_DEATH(run([](HopperThread& t, float(&d)[32]) { Multiply(t, d); }),
               "changed since MatrixFence");
  EXPECT_DEATH(run([](HopperThread& t, float(&d)[32]) {
                 t.MatrixFence(d);
                 d[3] = 1.0f;
                 Multiply(t, d);
               }),
               "changed since MatrixFence");
  EXPECT_DEATH(run([](HopperThread& t, float(&d)[32]) {
                 t.MatrixFence(d);
                 Multiply(t, d);
                 t.MatrixCommit();
                 d[3] = 1.0f;
                 t.MatrixWait<0>(d);
               }),
               "written while its product was at work");
  EXPECT_DEATH(run([](HopperThread& t, float(&d)[32]) {
                 t.MatrixFence(d);
                 Multiply(t, d);
                 t.MatrixCommit();
                 t.MatrixWait<1>(d);
               }),
               "names an accumulator whose product is still at work");
  EXPECT_DEATH(run([](HopperThread& t, float(&d)[32]) {
                 t.MatrixFence(d);
                 Multiply(t, d);
                 t.MatrixCommit();
               }),
               "never waited for");
  EXPECT_DEATH(run([](HopperThread& t, float(&d)[32]) {
                 t.MatrixFence(d);
                 const uint64_t odd = DepthMajor(kTile + (t.thread() < 64 ? 0 : 32));
                 t.MultiplyShared<Bf16, 64, Major::kDepth, Major::kDepth>(d, odd, odd, false);
               }),
               "issues another product");
  EXPECT_DEATH(run([](HopperThread& t, float(&d)[32]) {
                 uint32_t a[4] = {};
                 t.MatrixFence(d, a);
                 t.MultiplyRegisters<Bf16, 64, Major::kOuter>(d, a, OuterMajor(kTile, 8192), false);
                 t.MatrixCommit();
                 a[0] = 1;
                 t.MatrixWait<0>(d);
               }),
               "A's registers changed");
}

TEST_F(HopperHazardsDeathTest, Barriers) {
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 Init(t, 2);
                 if (t.thread() == 40) t.BarrierArrive(kBarrier);
                 t.BarrierWait(kBarrier, 0);
               }),
               "deadlock, 0 loads under way.*\n.*warp 0: 32 lanes for barrier 1024 parity 0 .1 "
               "arrivals and 0 bytes missing");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 Init(t, 1);
                 t.BarrierArrive(kBarrier);
                 t.BarrierWait(kBarrier, 1);
                 if (t.thread() < 32) t.NamedSync(2, 64);
               }),
               "warp 0: 32 lanes for named barrier 2 .32 of 64 there");
  EXPECT_DEATH(Run([&](HopperThread& t) { t.NamedSync(1, t.thread() < 64 ? 128 : 64); }),
               "named barrier 1: 64 threads for one, 128 for another|"
               "named barrier 1: 128 threads for one, 64 for another");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 if (t.thread() < 32) t.NamedArrive(5, 64);
               }),
               "ended with 32 arrivals at named barrier 5");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 if (t.thread() % 32 < 16) t.NamedSync(5, 64);
               }),
               "16 threads of warp");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 if (t.thread() == 3) return;
                 t.ShuffleXor(0.0f, 1);
               }),
               "31 lanes for the other lanes");
}

TEST_F(HopperHazardsDeathTest, Registers) {
  EXPECT_DEATH(Run(
                   [&](HopperThread& t) {
                     if (t.thread() < 128) t.DecreaseRegisters<40>();
                     if (t.thread() >= 128) t.IncreaseRegisters<240>();
                   },
                   384),
               "lanes for 240 registers");
  EXPECT_DEATH(Run([&](HopperThread& t) { t.IncreaseRegisters<24>(); }), "the wrong way");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 if (t.thread() < 64) t.DecreaseRegisters<24>();
               }),
               "unlike numbers of registers");
}

TEST_F(HopperHazardsDeathTest, WordsBetweenBlocks) {
  static int32_t word = 0;
  EXPECT_DEATH(HopperGrid(128, 4096, 1, 2).Run(2, [&](HopperThread& t) { t.Await(&word, 1); }),
               "deadlock(.|\n)*32 lanes for a shared word to be 1, it is 0");
  alignas(16) static float to[4];
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 if (t.thread() >= 32) return;
                 if (t.thread() == 5) {
                   for (uint32_t i = 0; i < 4; ++i) t.StoreWord(kTile + 4 * i, 0);
                   t.FenceAsync();
                   t.ReduceAddBulk(to, kTile, 16);
                   t.CommitBulk();
                 }
                 t.NamedSync(1, 32);
                 if (t.thread() == 0) t.PassOn(&word, 1);
                 if (t.thread() == 5) t.WaitBulk<0>();
               }),
               "passed on while sums of its warp are under way");
}

TEST_F(HopperHazardsDeathTest, BulkStores) {
  alignas(16) static float to[8];
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 t.StoreWord(kTile, 0);
                 t.StoreBulk(to, kTile, 16);
               }),
               "without that thread's FenceAsync");
  EXPECT_DEATH(Run([&](HopperThread& t) {
                 if (t.thread() != 0) return;
                 t.StoreBulk(to, kTile, 16);
                 t.CommitBulk();
               }),
               "never waited for");
  EXPECT_DEATH(Run([&](HopperThread& t) { t.StoreBulk(to + 1, kTile, 16); }), "off by 4");
}

}  // namespace
}  // namespace annulus::kernels::cuda
