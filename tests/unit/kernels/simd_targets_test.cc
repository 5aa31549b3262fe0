// SPDX-License-Identifier: Apache-2.0
// Every instruction set that was compiled and that this processor has, within the same gates.
#include "kernels/cpu/simd_targets.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "hwy/highway.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/forward_kernel.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

class SimdTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { Choose(GetParam()); }
  void TearDown() override {
    Choose(0);
    cpu::SetBf16Mode(cpu::Bf16Mode::kBest);
  }

 private:
  static void Choose(int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_P(SimdTarget, ForwardAndBackwardWithinGates) {
  EXPECT_STREQ(cpu::SimdTargetName(), hwy::TargetName(GetParam()));
  CpuDevice device(1);
  for (const int64_t head_dim : {16, 40, 72, 128}) {
    for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16}) {
      AttentionCase c({1, 100, 307, 2, 1, head_dim, dtype, Causal(207, 150)});
      SCOPED_TRACE(testing::Message() << "head size " << head_dim << " dtype " << dtype);
      device.Attend(c);
      ExpectForwardMatches(c);
      device.AttendBackward(c);
      ExpectGradientsMatch(c);
    }
  }
}

TEST_P(SimdTarget, FewRowsWithinGates) {
  CpuDevice device(1);
  for (const int64_t rows : {1, 3, 6}) {
    for (const int64_t head_dim : {16, 40, 128}) {
      for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16}) {
        for (const annulusMask mask : {Full(), Causal(307 - rows, 150)}) {
          AttentionCase c({1, rows, 307, 4, 2, head_dim, dtype, mask});
          SCOPED_TRACE(testing::Message()
                       << rows << " rows, head size " << head_dim << " dtype " << dtype);
          device.Attend(c);
          ExpectForwardMatches(c);
        }
      }
    }
  }
}

// The instruction sets that bfloat16 products are compiled for: AVX-512, and plain C++.
class Bf16Target : public SimdTarget {
 protected:
  // Those that are not float32 here.
  static std::vector<cpu::Bf16Mode> Modes() {
    std::vector<cpu::Bf16Mode> modes = {cpu::Bf16Mode::kEmulatedPairs,
                                        cpu::Bf16Mode::kEmulatedTiles};
    if (GetParam() != HWY_AVX3) return modes;
    if (cpu::NativeBf16Pairs() != nullptr) modes.push_back(cpu::Bf16Mode::kPairs);
    if (cpu::NativeBf16Tiles() != nullptr) modes.push_back(cpu::Bf16Mode::kTiles);
    return modes;
  }
};

// Products of bfloat16, in plain C++ and, where the processor has them, natively: as exact as those
// of float32, though weights and score gradients go into them as bfloat16.
TEST_P(Bf16Target, WithinGates) {
  CpuDevice device(1);
  for (const cpu::Bf16Mode mode : Modes()) {
    cpu::SetBf16Mode(mode);
    for (const int64_t head_dim : {16, 40, 128}) {
      if (kUnderSanitizer && head_dim > 40) continue;
      for (const float scale : {0.0f, 0.2f, -0.2f}) {
        for (const annulusMask mask : {Full(), Causal(201), Causal(60, 101)}) {
          AttentionCase c({1, 101, 301, 2, 1, head_dim, ANNULUS_BF16, mask, scale});
          SCOPED_TRACE(testing::Message() << "head size " << head_dim << " scale " << scale
                                          << " offset " << mask.causal_offset);
          device.Attend(c);
          ExpectFloat32Forward(c);
          device.AttendBackward(c);
          ExpectFloat32Gradients(c);
        }
      }
    }
  }
}

// What the tests above and below rely on: the mode decides.
TEST_P(Bf16Target, ModesAreArithmeticsOfTheirOwn) {
  CpuDevice device(1);
  const AttentionCase clean({1, 60, 60, 1, 1, 16, ANNULUS_BF16});
  AttentionCase converted = clean;
  cpu::SetBf16Mode(cpu::Bf16Mode::kConvert);
  device.Attend(converted);
  for (const cpu::Bf16Mode mode : Modes()) {
    AttentionCase c = clean;
    cpu::SetBf16Mode(mode);
    device.Attend(c);
    EXPECT_NE(c.o_data, converted.o_data) << static_cast<int>(mode);
  }
}

// A NaN behind a mask touches nothing, whatever multiplies.
TEST_P(Bf16Target, MaskedNaNStaysOut) {
  CpuDevice device(1);
  for (const cpu::Bf16Mode mode : Modes()) {
    cpu::SetBf16Mode(mode);
    AttentionCase c({1, 50, 50, 1, 1, 16, ANNULUS_BF16, Causal(0)});
    AttentionCase clean = c;
    for (const annulusTensor& tensor : {c.k(), c.v(), c.q(), c.d_o()}) {
      AttentionCase::FillRow(tensor, 0, 40, 0, std::numeric_limits<float>::quiet_NaN());
    }
    device.Attend(clean);
    device.Attend(c);
    for (int64_t row = 0; row < 50; ++row) {
      EXPECT_EQ(std::isnan(c.o_data[row * 16]), row >= 40) << row;
      if (row >= 40) continue;
      EXPECT_NEAR(c.o_data[row * 16], clean.o_data[row * 16], 1e-6) << row;
    }
    device.AttendBackward(c);
    for (int64_t row = 0; row < 50; ++row) {
      EXPECT_EQ(std::isnan(c.dq_data[row * 16]), row >= 40) << row;
      EXPECT_TRUE(std::isnan(c.dk_data[row * 16])) << "seen by the query that is NaN";
    }
  }
}

// Rounding adds to a float's bits; those of some NaN would run over and be zero.
TEST_P(Bf16Target, NaNOfAnyBitsReachesTheGradients) {
  CpuDevice device(1);
  for (const cpu::Bf16Mode mode : Modes()) {
    cpu::SetBf16Mode(mode);
    for (const uint32_t bits : {0x7fc00000u, 0x7fffffffu, 0xffffffffu}) {
      AttentionCase c({1, 50, 50, 1, 1, 16, ANNULUS_BF16});
      device.Attend(c);
      c.lse_data[7] = std::bit_cast<float>(bits);
      device.AttendBackward(c);
      for (int64_t row = 0; row < 50; ++row) {
        EXPECT_EQ(std::isnan(c.dq_data[row * 16]), row == 7) << row << " bits " << bits;
        EXPECT_TRUE(std::isnan(c.dk_data[row * 16]) && std::isnan(c.dv_data[row * 16])) << row;
      }
    }
  }
}

std::string NameOf(const testing::TestParamInfo<int64_t>& target) {
  return hwy::TargetName(target.param);
}

std::vector<int64_t> Bf16Targets() {
  std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  std::erase_if(
      targets, [](int64_t target) { return (target & (HWY_AVX3 | HWY_EMU128 | HWY_SCALAR)) == 0; });
  return targets;
}

INSTANTIATE_TEST_SUITE_P(All, SimdTarget, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(All, Bf16Target, testing::ValuesIn(Bf16Targets()), NameOf);

}  // namespace
}  // namespace annulus::kernels
