// SPDX-License-Identifier: Apache-2.0
// Every instruction set that was compiled and that this processor has, within the same gates.
#include "kernels/cpu/simd_targets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "hwy/highway.h"
#include "kernels/cpu/forward_kernel.h"
#include "kernels/cpu/multiplier.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

class SimdTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { Choose(GetParam()); }
  void TearDown() override { Choose(0); }

 private:
  static void Choose(int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

// By vectors of float32: what else multiplies is tested below.
TEST_P(SimdTarget, ForwardAndBackwardWithinGates) {
  EXPECT_STREQ(cpu::SimdTargetName(), hwy::TargetName(GetParam()));
  CpuDevice device(1, "vectors");
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

// A provider that would not be what multiplies is refused, not passed over.
TEST_P(SimdTarget, ProvidersThatDoNotRunAreRefused) {
  const bool has_bf16 = (GetParam() & (HWY_AVX3 | HWY_EMU128 | HWY_SCALAR)) != 0;
  EXPECT_EQ(cpu::MultiplierOf("emulated_amx").ok(), has_bf16);
  EXPECT_EQ(cpu::MultiplierOf("emulated_avx512_bf16").ok(), has_bf16);
  if (GetParam() != HWY_AVX3) {
    EXPECT_EQ(cpu::MultiplierOf("amx").status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(cpu::MultiplierOf("avx512_bf16").status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(*cpu::MultiplierOf("auto"), cpu::Multiplier::kVectors);
  }
  EXPECT_THAT(cpu::MultiplierOf("avx").status().message(), testing::HasSubstr("\"vectors\""));
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
  // A case for each provider that multiplies in bfloat16 and runs here, and each dtype that it has
  // an arithmetic of its own for.
  template <typename Body>
  static void ForEachArithmetic(const Body& body) {
    for (const char* provider : {"emulated_amx", "emulated_avx512_bf16", "amx", "avx512_bf16"}) {
      const absl::StatusOr<cpu::Multiplier> multiplier = cpu::MultiplierOf(provider);
      if (!multiplier.ok()) continue;
      const bool pairs = *multiplier == cpu::Multiplier::kAvx512Bf16 ||
                         *multiplier == cpu::Multiplier::kEmulatedAvx512Bf16;
      CpuDevice device(1, provider);
      for (const annulusDtype dtype : {ANNULUS_BF16, ANNULUS_F32, ANNULUS_F16}) {
        if (pairs && dtype != ANNULUS_BF16) continue;
        SCOPED_TRACE(testing::Message() << provider << " dtype " << dtype);
        body(device, dtype);
      }
    }
  }
};

// Products of bfloat16, in plain C++ and, where the processor has them, natively: as exact as those
// of float32, though everything goes into them as bfloat16.
TEST_P(Bf16Target, WithinGates) {
  ForEachArithmetic([&](CpuDevice& device, annulusDtype dtype) {
    for (const int64_t head_dim : {16, 40, 128}) {
      const int64_t head_dim_max = dtype == ANNULUS_BF16 ? 40 : 16;
      if (kUnderSanitizer && head_dim > head_dim_max) continue;
      if (dtype == ANNULUS_F16 && head_dim != 40) continue;  // takes the way of float32
      for (const float scale : {0.0f, 0.2f, -0.2f}) {
        for (const annulusMask mask : {Full(), Causal(201), Causal(60, 101)}) {
          AttentionCase c({1, 101, 301, 2, 1, head_dim, dtype, mask, scale});
          SCOPED_TRACE(testing::Message() << "head size " << head_dim << " scale " << scale
                                          << " offset " << mask.causal_offset);
          device.Attend(c);
          ExpectFloat32Forward(c);
          device.AttendBackward(c);
          ExpectFloat32Gradients(c);
        }
      }
    }
  });
}

// A float32 is three bfloat16 exactly: it makes no difference to the error that its last bits, all
// of them in use, go into products apart from the first.
TEST_P(Bf16Target, Float32KeepsAllOfItsBits) {
  ForEachArithmetic([&](CpuDevice& device, annulusDtype dtype) {
    if (dtype != ANNULUS_F32) return;
    AttentionCase c({1, 32, 1, 1, 1, 64});
    const auto value = [](int64_t i) { return 1.0f + static_cast<float>(i + 1) * 0x1p-23f; };
    auto* v = reinterpret_cast<float*>(c.v_data.data());
    for (int64_t i = 0; i < 64; ++i) v[i] = value(i);
    device.Attend(c);
    for (int64_t i = 0; i < 32 * 64; ++i) EXPECT_EQ(c.o_data[i], value(i % 64)) << i;
  });
}

// What the tests above and below rely on: the provider decides.
TEST_P(Bf16Target, ProvidersAreArithmeticsOfTheirOwn) {
  CpuDevice vectors(1, "vectors");
  ForEachArithmetic([&](CpuDevice& device, annulusDtype dtype) {
    AttentionCase c({1, 60, 60, 1, 1, 16, dtype});
    AttentionCase converted = c;
    device.Attend(c);
    vectors.Attend(converted);
    EXPECT_NE(c.o_data, converted.o_data);
  });
}

// Patterns of a float32 NaN: that of this processor, and two that rounding would carry over.
constexpr uint32_t kNaNBits[] = {0x7fc00000u, 0x7fffffffu, 0xffffffffu};

// A NaN behind a mask touches nothing, whatever multiplies: not even the row that shares its words,
// of which rows 31 and 40 are the second and the first.
TEST_P(Bf16Target, MaskedNaNStaysOut) {
  ForEachArithmetic([&](CpuDevice& device, annulusDtype dtype) {
    // Highway 1.0.3 reads a float16 NaN as a number there.
    if (GetParam() == HWY_SCALAR && dtype == ANNULUS_F16) return;
    for (const int64_t poisoned : {31, 40}) {
      for (const uint32_t bits : kNaNBits) {
        SCOPED_TRACE(testing::Message() << "row " << poisoned << " bits " << bits);
        AttentionCase c({1, 50, 50, 1, 1, 16, dtype, Causal(0)});
        AttentionCase clean = c;
        for (const annulusTensor& tensor : {c.k(), c.v(), c.q(), c.d_o()}) {
          AttentionCase::FillRow(tensor, 0, poisoned, 0, std::bit_cast<float>(bits));
        }
        device.Attend(clean);
        device.Attend(c);
        for (int64_t row = 0; row < 50; ++row) {
          EXPECT_EQ(std::isnan(c.o_data[row * 16]), row >= poisoned) << row;
          if (row >= poisoned) continue;
          EXPECT_NEAR(c.o_data[row * 16], clean.o_data[row * 16], 1e-6) << row;
        }
        device.AttendBackward(clean);
        device.AttendBackward(c);
        for (int64_t row = 0; row < 50; ++row) {
          EXPECT_EQ(std::isnan(c.dq_data[row * 16]), row >= poisoned) << row;
          EXPECT_TRUE(std::isnan(c.dk_data[row * 16])) << "seen by the query that is NaN";
          if (row >= poisoned) continue;
          EXPECT_NEAR(c.dq_data[row * 16], clean.dq_data[row * 16], 1e-5) << row;
        }
      }
    }
  });
}

// Rounding adds to a float's bits; those of some NaN would run over and be zero.
TEST_P(Bf16Target, NaNOfAnyBitsReachesTheGradients) {
  ForEachArithmetic([&](CpuDevice& device, annulusDtype dtype) {
    for (const uint32_t bits : kNaNBits) {
      AttentionCase c({1, 50, 50, 1, 1, 16, dtype});
      device.Attend(c);
      c.lse_data[7] = std::bit_cast<float>(bits);
      device.AttendBackward(c);
      for (int64_t row = 0; row < 50; ++row) {
        EXPECT_EQ(std::isnan(c.dq_data[row * 16]), row == 7) << row << " bits " << bits;
        EXPECT_TRUE(std::isnan(c.dk_data[row * 16]) && std::isnan(c.dv_data[row * 16])) << row;
      }
    }
  });
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
