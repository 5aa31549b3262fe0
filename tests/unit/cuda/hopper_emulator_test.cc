// SPDX-License-Identifier: Apache-2.0
// Each instruction of the emulated Hopper block against a plain model of it.
#include "tests/unit/cuda/hopper_emulator.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "tests/unit/cuda/emulated_tensor_map.h"

namespace annulus::kernels::cuda {
namespace {

constexpr uint32_t kBarrier = kSharedBase;
constexpr uint32_t kTiles = kSharedBase + 1024;
constexpr uint32_t kShared = 66 << 10;

// A matrix in global memory, a map of it, and float64 access.
struct Matrix {
  Matrix(int rows_of, int columns_of, annulusDtype dtype, uint32_t seed)
      : rows(rows_of), columns(columns_of) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    data.resize(rows * columns);
    for (uint16_t& value : data) {
      value = dtype == ANNULUS_BF16 ? FloatToBf16(normal(rng)) : FloatToF16(normal(rng));
    }
    const annulusTensor tensor = ContiguousTensor(data.data(), dtype, 1, rows, 1, columns);
    map = *EncodeEmulatedMap({tensor, rows});
    to_float = dtype == ANNULUS_BF16 ? Bf16ToFloat : F16ToFloat;
  }
  double At(int row, int column) const { return to_float(data[row * columns + column]); }

  int rows, columns;
  std::vector<uint16_t> data;
  TensorMap map;
  float (*to_float)(uint16_t);
};

// Loads the matrix panel by panel to `to` and waits for it.
void LoadMatrix(HopperThread& t, const Matrix& matrix, uint32_t barrier, uint32_t to) {
  const auto panel_bytes = static_cast<uint32_t>(matrix.rows * kPanelRowBytes);
  const int panels = matrix.columns / kPanelColumns;
  if (t.thread() == 0) {
    t.BarrierInit(barrier, 1);
    t.FenceBarrierInit();
    t.BarrierArriveExpect(barrier, panels * panel_bytes);
    for (int panel = 0; panel < panels; ++panel) {
      t.LoadPanel(matrix.map, barrier, to + panel * panel_bytes, panel * kPanelColumns, 0, 0, 0);
    }
  }
  t.Sync();
  t.BarrierWait(barrier, 0);
}

// Where the accumulator of a thread lies: as the PTX manual draws D of wgmma.m64nNk16.
int RowOfElement(int thread, int i) {
  return thread / 32 * 16 + thread % 32 / 4 + ((i & 2) != 0 ? 8 : 0);
}
int ColumnOfElement(int thread, int i) { return (i >> 2) * 8 + (thread & 3) * 2 + (i & 1); }

// d = 1 + A B, both from shared memory, 64 x kColumns x depth.
template <class Half, int kColumns, Major kA, Major kB>
void CheckProduct(int depth) {
  const Matrix a =
      kA == Major::kDepth ? Matrix(64, depth, Half::kDtype, 1) : Matrix(depth, 64, Half::kDtype, 1);
  const Matrix b = kB == Major::kDepth ? Matrix(kColumns, depth, Half::kDtype, 2)
                                       : Matrix(depth, kColumns, Half::kDtype, 2);
  HopperEmulator(kWarpgroupThreads, kShared, 5).Run(0, 1, [&](HopperThread& t) {
    const uint32_t b_tile = kTiles + (24 << 10);
    LoadMatrix(t, a, kBarrier, kTiles);
    LoadMatrix(t, b, kBarrier + 8, b_tile);
    float d[kColumns / 2];
    for (float& element : d) element = 1.0f;
    t.MatrixFence(d);
    for (int k = 0; k < depth; k += kStepDepth) {
      const auto at = [&](Major major, uint32_t tile, int rows) {
        const uint32_t panel = k / kPanelColumns * rows * kPanelRowBytes;
        if (major == Major::kOuter) {
          return OuterMajor(tile + k * kPanelRowBytes, depth * kPanelRowBytes);
        }
        return DepthMajor(tile + panel + k % kPanelColumns * 2);
      };
      t.MultiplyShared<Half, kColumns, kA, kB>(d, at(kA, kTiles, 64), at(kB, b_tile, kColumns),
                                               true);
    }
    t.MatrixCommit();
    EXPECT_TRUE(std::isnan(d[0]));
    t.MatrixWait<0>(d);
    for (int i = 0; i < kColumns / 2; ++i) {
      const int row = RowOfElement(t.thread(), i);
      const int column = ColumnOfElement(t.thread(), i);
      double want = 1.0;
      for (int k = 0; k < depth; ++k) {
        want += (kA == Major::kDepth ? a.At(row, k) : a.At(k, row)) *
                (kB == Major::kDepth ? b.At(column, k) : b.At(k, column));
      }
      ASSERT_NEAR(d[i], want, 1e-4);
    }
  });
}

TEST(HopperEmulator, ProductsOfEveryOrderOfTheOperands) {
  CheckProduct<Bf16, 64, Major::kDepth, Major::kDepth>(64);
  CheckProduct<F16, 64, Major::kDepth, Major::kOuter>(64);
  CheckProduct<Bf16, 64, Major::kOuter, Major::kDepth>(128);
  CheckProduct<Bf16, 64, Major::kOuter, Major::kOuter>(64);
  CheckProduct<Bf16, 128, Major::kDepth, Major::kDepth>(128);
  CheckProduct<F16, 128, Major::kDepth, Major::kOuter>(64);
}

// The product of a product: D rounded is A of the next, without leaving the registers.
TEST(HopperEmulator, AnAccumulatorRoundedIsTheNextOperand) {
  const Matrix a(64, 64, ANNULUS_F16, 1);
  const Matrix b(64, 64, ANNULUS_F16, 2);
  const Matrix v(64, 128, ANNULUS_F16, 3);
  HopperEmulator(kWarpgroupThreads, kShared, 9).Run(0, 1, [&](HopperThread& t) {
    const uint32_t tiles[] = {kTiles, kTiles + 8192, kTiles + 16384};
    LoadMatrix(t, a, kBarrier, tiles[0]);
    LoadMatrix(t, b, kBarrier + 8, tiles[1]);
    LoadMatrix(t, v, kBarrier + 16, tiles[2]);
    float s[32];
    float o[64];
    t.MatrixFence(s);
    for (int k = 0; k < 4; ++k) {
      t.MultiplyShared<F16, 64, Major::kDepth, Major::kDepth>(s, DepthMajor(tiles[0] + 32 * k),
                                                              DepthMajor(tiles[1] + 32 * k), k > 0);
    }
    t.MatrixCommit();
    t.MatrixWait<0>(s);
    uint32_t p[4][4];
    for (int k = 0; k < 4; ++k) {
      for (int i = 0; i < 4; ++i)
        p[k][i] = t.RoundPair<F16>(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
    }
    t.MatrixFence(p, o);
    for (int k = 0; k < 4; ++k) {
      t.MultiplyRegisters<F16, 128, Major::kOuter>(
          o, p[k], Moved(OuterMajor(tiles[2], 8192), k * kOuterMajorStep), k > 0);
    }
    t.MatrixCommit();
    t.MatrixWait<0>(o);
    for (int i = 0; i < 64; ++i) {
      double want = 0.0;
      for (int j = 0; j < 64; ++j) {
        double score = 0.0;
        for (int k = 0; k < 64; ++k) score += a.At(RowOfElement(t.thread(), i), k) * b.At(j, k);
        want += score * v.At(j, ColumnOfElement(t.thread(), i));
      }
      ASSERT_NEAR(o[i], want, 0.3);  // |want| is about 64, rounded to 11 bits on the way
    }
  });
}

TEST(HopperEmulator, LoadsFillWithZeroOutsideTheTensorAndSwizzle) {
  std::vector<uint16_t> data(2 * 5 * 3 * 72);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint16_t>(i + 1);
  const annulusTensor tensor = ContiguousTensor(data.data(), ANNULUS_BF16, 2, 5, 3, 72);
  const TensorMap map = *EncodeEmulatedMap({tensor, 8});
  HopperEmulator(kWarpgroupThreads, 4096, 1).Run(0, 1, [&](HopperThread& t) {
    if (t.thread() == 0) {
      t.BarrierInit(kBarrier, 1);
      t.FenceBarrierInit();
      t.BarrierArriveExpect(kBarrier, 1024);
      t.LoadPanel(map, kBarrier, kTiles, 64, 2, 1, 1);
      t.BarrierWait(kBarrier, 0);
      for (int row = 0; row < 8; ++row) {
        for (int column = 0; column < 64; ++column) {
          const uint32_t piece = (column / 8) ^ (row % 8);  // of 16 bytes
          const uint32_t word = t.LoadWord(kTiles + row * 128 + piece * 16 + column % 8 / 2 * 4);
          const uint16_t half = static_cast<uint16_t>(column % 2 == 0 ? word : word >> 16);
          const bool inside = row + 2 < 5 && column + 64 < 72;
          const int64_t at = ElementOffset(tensor, 1, row + 2, 1) + 64 + column;
          ASSERT_EQ(half, inside ? data[at] : 0) << row << " " << column;
        }
      }
    }
  });
  const annulusTensor moved = ContiguousTensor(data.data() + 1, ANNULUS_BF16, 1, 5, 3, 72);
  EXPECT_FALSE(EncodeEmulatedMap({moved, 8}).ok());
  EXPECT_FALSE(CanMap(moved));
  EXPECT_TRUE(CanMap(tensor));
  annulusTensor uneven = tensor;
  uneven.row_stride += 4;
  EXPECT_FALSE(EncodeEmulatedMap({uneven, 8}).ok());
  EXPECT_FALSE(CanMap(uneven));
}

TEST(HopperEmulator, BulkStoresAndSums) {
  alignas(16) float stored[128] = {};
  alignas(16) float summed[128];
  for (float& value : summed) value = 10.0f;
  HopperEmulator(kWarpgroupThreads, 4096, 1).Run(0, 1, [&](HopperThread& t) {
    t.StoreWord(kTiles + 4 * t.thread(), std::bit_cast<uint32_t>(static_cast<float>(t.thread())));
    t.FenceAsync();
    t.Sync();
    if (t.thread() != 7) return;
    t.StoreBulk(stored, kTiles, 512);
    t.CommitBulk();
    t.ReduceAddBulk(summed, kTiles, 512);
    t.CommitBulk();
    t.WaitBulk<1>();
    EXPECT_EQ(stored[100], 100.0f);
    EXPECT_EQ(summed[100], 10.0f);
    t.WaitBulk<0>();
  });
  for (int i = 0; i < 128; ++i) {
    EXPECT_EQ(stored[i], static_cast<float>(i));
    EXPECT_EQ(summed[i], 10.0f + static_cast<float>(i));
  }
}

// Two stages between one that fills them and three warps that empty them, in many orders.
TEST(HopperEmulator, PhasesOfBarriersCarryAPipeline) {
  for (uint32_t seed = 0; seed < 10; ++seed) {
    HopperEmulator(kWarpgroupThreads, 4096, seed).Run(0, 1, [](HopperThread& t) {
      constexpr uint32_t kEmpty = kBarrier + 16;
      if (t.thread() == 0) {
        for (uint32_t stage = 0; stage < 2; ++stage) {
          t.BarrierInit(kBarrier + 8 * stage, 1);
          t.BarrierInit(kEmpty + 8 * stage, 3);
        }
      }
      t.Sync();
      for (uint32_t i = 0; i < 7; ++i) {
        const uint32_t stage = i % 2;
        const uint32_t phase = i / 2 % 2;
        if (t.thread() == 0) {
          t.BarrierWait(kEmpty + 8 * stage, phase ^ 1);
          t.StoreWord(kTiles + 4 * stage, i);
          t.BarrierArrive(kBarrier + 8 * stage);
        } else if (t.thread() >= 32) {
          t.BarrierWait(kBarrier + 8 * stage, phase);
          EXPECT_EQ(t.LoadWord(kTiles + 4 * stage), i);
          t.ShuffleXor(0.0f, 1);  // all lanes have read
          if (t.thread() % 32 == 0) t.BarrierArrive(kEmpty + 8 * stage);
        }
      }
    });
  }
}

TEST(HopperEmulator, NamedBarriersVotesElectionsAndRegisters) {
  std::vector<int> elected(8, 0);
  HopperEmulator(256, 2048, 3).Run(2, 5, [&](HopperThread& t) {
    EXPECT_EQ(t.block(), 2);
    EXPECT_EQ(t.blocks(), 5);
    if (t.ElectOne()) ++elected[t.thread() / 32];
    if (t.thread() < 128) {
      t.DecreaseRegisters<24>();
      t.StoreWord(kTiles, 5);
      t.NamedArrive(3, 256);
    } else {
      t.IncreaseRegisters<256>();
      t.NamedSync(3, 256);
      EXPECT_EQ(t.LoadWord(kTiles), 5u);
      EXPECT_TRUE(t.NamedSyncOr(4, 128, t.thread() == 200));
      EXPECT_FALSE(t.NamedSyncOr(4, 128, false));
      EXPECT_EQ(t.ShuffleXor(static_cast<float>(t.thread()), 4), t.thread() ^ 4);
      EXPECT_EQ(t.ShuffleFrom(static_cast<float>(t.thread()), 9), t.thread() / 32 * 32 + 9);
    }
  });
  for (const int count : elected) EXPECT_EQ(count, 1);
}

// Blocks that add to one place in the order of their numbers, whichever of them are there when.
TEST(HopperEmulator, BlocksPassWordsOn) {
  constexpr int kBlocks = 5;
  alignas(16) const float rounded_away[4] = {1e8f, 1.0f, -1e8f, 1.0f};  // sums tell the order
  for (uint32_t seed = 0; seed < 10; ++seed) {
    for (const int resident : {1, 3, 5}) {
      alignas(16) float sum[4] = {};
      int32_t turns[2] = {0, 0};
      HopperGrid(kWarpgroupThreads, 2048, seed, resident).Run(kBlocks, [&](HopperThread& t) {
        if (t.thread() >= 32) return;
        if (t.thread() == 0) t.StoreWord(kBarrier, t.TakeNumber(&turns[0]));
        t.NamedSync(1, 32);
        const auto own = static_cast<int32_t>(t.LoadWord(kBarrier));
        if (t.thread() < 2) {
          t.StoreFloats(kTiles + 8 * t.thread(), rounded_away[own % 4], static_cast<float>(own));
          t.FenceAsync();
        }
        t.NamedSync(1, 32);
        t.Await(&turns[1], own);
        if (t.thread() == 3) {
          t.ReduceAddBulk(sum, kTiles, 16);
          t.CommitBulk();
          t.WaitBulk<0>();
        }
        t.NamedSync(1, 32);
        if (t.thread() == 0) t.PassOn(&turns[1], own + 1);
      });
      EXPECT_EQ(turns[0], kBlocks);
      EXPECT_EQ(turns[1], kBlocks);
      EXPECT_EQ(sum[0], (((1e8f + 1.0f) - 1e8f) + 1.0f) + 1e8f);
      EXPECT_EQ(sum[1], 0.0f + 1 + 2 + 3 + 4);
    }
  }
}

TEST(HopperEmulator, ZeroTimesWhatIsNotFiniteIsNaN) {
  HopperThread t;
  const uint32_t finite = t.RoundPair<Bf16>(-3.0f, 1e30f);
  EXPECT_EQ(t.AddZeroTimes<Bf16>(finite, 0) & 0x7fff7fffu, 0u);
  const uint32_t infinite = t.RoundPair<Bf16>(1.0f, -HUGE_VALF);
  const uint32_t sum = t.AddZeroTimes<Bf16>(finite, t.AddZeroTimes<Bf16>(infinite, 0));
  EXPECT_FALSE(Bf16::Finite(static_cast<uint16_t>(sum >> 16)));
  EXPECT_TRUE(Bf16::Finite(static_cast<uint16_t>(sum)));
}

}  // namespace
}  // namespace annulus::kernels::cuda
