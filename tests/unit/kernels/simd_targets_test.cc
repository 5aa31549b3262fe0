// SPDX-License-Identifier: Apache-2.0
// Every instruction set that was compiled and that this processor has, within the same gates.
#include "kernels/cpu/simd_targets.h"

#include <gtest/gtest.h>

#include "hwy/highway.h"
#include "kernels/cpu/forward_kernel.h"
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

TEST_P(SimdTarget, ForwardAndBackwardWithinGates) {
  EXPECT_STREQ(cpu::SimdTargetName(), hwy::TargetName(GetParam()));
  CpuDevice device(1);
  for (const int64_t head_dim : {16, 40, 72, 128}) {
    for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16}) {
      AttentionCase c({1, 100, 207, 2, 1, head_dim, dtype, Causal(107, 150)});
      SCOPED_TRACE(testing::Message() << "head size " << head_dim << " dtype " << dtype);
      device.Attend(c);
      ExpectForwardMatches(c);
      device.AttendBackward(c);
      ExpectGradientsMatch(c);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SimdTarget, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& target) { return hwy::TargetName(target.param); });

}  // namespace
}  // namespace annulus::kernels
