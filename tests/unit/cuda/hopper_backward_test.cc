// SPDX-License-Identifier: Apache-2.0
// The backward kernels of compute capability 9.0, whole: the warps that load, compute and add,
// through the plugin on the emulated block, against the float64 reference.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/cuda/cuda_plugin.h"
#include "kernels/reference/error_metrics.h"
#include "kernels/tensor_view.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/cuda/fake_driver.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class HopperBackward : public testing::Test {
 protected:
  void SetUp() override {
    cuda::Fake() = cuda::FakeCuda();
    cuda::Fake().properties.multiprocessors = 3;  // so that a block has several units
  }

  // Forward by the device, backward by it; of launches only the backward ones are kept.
  static void Run(TestDevice& device, AttentionCase& c) {
    device.Attend(c);
    cuda::Fake().launches.clear();
    device.AttendBackward(c);
    ExpectHopper();
  }
  static void ExpectHopper() {
    ASSERT_GE(cuda::Fake().launches.size(), 2u);  // the first is delta's
    for (size_t i = 1; i < cuda::Fake().launches.size(); ++i) {
      EXPECT_TRUE(cuda::ShapeOf(cuda::Fake().launches[i].kernel).hopper);
    }
  }
  static void ClearGradients(AttentionCase& c) {
    for (auto* gradient : {&c.dq_data, &c.dk_data, &c.dv_data}) {
      gradient->assign(gradient->size(), 0.0f);
    }
  }
};

TEST_F(HopperBackward, HeadSizesDtypesAndMasks) {
  TestDevice device(CudaPlugin());
  int trial = 0;
  for (const int64_t head_dim : {16, 40, 64, 72, 128}) {
    for (const annulusDtype dtype : {ANNULUS_BF16, ANNULUS_F16}) {
      if (kUnderSanitizer && (dtype == ANNULUS_F16 || head_dim % 64 != 0)) continue;
      const annulusMask masks[] = {Full(), Causal(130), Causal(-30), Causal(100, 150), Full(90)};
      AttentionCase c({1, 150, 210, 2, 1, head_dim, dtype, masks[trial++ % 5]}, trial);
      SCOPED_TRACE(testing::Message() << "head size " << head_dim << " dtype " << dtype);
      Run(device, c);
      ExpectGradientsMatch(c);
    }
  }
}

TEST_F(HopperBackward, RandomShapes) {
  std::mt19937 rng(7);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  TestDevice device(CudaPlugin());
  for (int trial = 0; trial < (kUnderSanitizer ? 2 : 8); ++trial) {
    cuda::Fake().schedule_seed = trial;
    cuda::Fake().resident_blocks = trial % 3 + 1;
    const int64_t kv_heads = pick(1, 2);
    const int64_t q_rows = pick(1, 300);
    const int64_t kv_rows = pick(2, 400);  // of one key alone dq and dk are zero
    const annulusMask masks[] = {Full(), Causal(kv_rows - q_rows), Causal(pick(-20, 300)),
                                 Causal(kv_rows - q_rows, pick(1, 200)), Full(pick(1, 300))};
    AttentionCase c({pick(1, 2), q_rows, kv_rows, kv_heads * pick(1, 2), kv_heads, 8 * pick(2, 16),
                     trial % 3 == 0 ? ANNULUS_F16 : ANNULUS_BF16, masks[trial % 5],
                     trial % 7 == 3 ? -0.3f : 0.0f},
                    trial);
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    Run(device, c);
    ExpectGradientsMatch(c);
  }
}

// As on a ring: the pieces of any cut of queries and keys, in place, give the whole.
TEST_F(HopperBackward, AnyLayoutInAnyPieces) {
  std::mt19937 rng(3);
  TestDevice device(CudaPlugin());
  for (int trial = 0; trial < (kUnderSanitizer ? 1 : 3); ++trial) {
    AttentionCase c({1, 120, 150, 1, 1, trial % 2 == 0 ? 64 : 128, ANNULUS_BF16,
                     Causal(30, trial == 2 ? 50 : -1)});
    c.q_spans = trial == 0 ? ZigzagSpans(120, 2) : StripedSpans(120, 2);
    c.kv_spans = trial == 1 ? ZigzagSpans(150, 2) : StripedSpans(150, 2);
    device.Attend(c);
    const annulusTensor d_o = c.d_o();
    const annulusTensor o = c.o();
    const annulusRowStat delta = c.delta();
    device.Check(device.api().backward_prepare(device.stream(), &d_o, &o, &delta));
    annulusAttendBackwardArgs args = c.BackwardArgs();
    const auto kv_lists = SplitSpans(c.kv_spans, 2, &rng);
    for (const auto& q_list : SplitSpans(c.q_spans, 2, &rng)) {
      for (const auto& kv_list : kv_lists) {
        args.q_spans = q_list.data();
        args.q_span_count = q_list.size();
        args.kv_spans = kv_list.data();
        args.kv_span_count = kv_list.size();
        device.Check(device.api().attend_backward(device.stream(), &args));
      }
    }
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    ExpectGradientsMatch(c);
  }
}

// Whatever the warps and blocks do when, with one grid and another, after calls of other sizes.
TEST_F(HopperBackward, DeterministicToTheBit) {
  TestDevice device(CudaPlugin(), 1, nullptr, /*deterministic=*/true);
  for (const int64_t head_dim : {64, 128}) {
    if (kUnderSanitizer && head_dim == 64) continue;
    AttentionCase c({1, 150, 390, 2, 1, head_dim, ANNULUS_BF16, Causal(240, 200)});
    c.kv_spans = ZigzagSpans(390, 2);
    Run(device, c);
    ExpectGradientsMatch(c);
    const AttentionCase first = c;
    for (uint32_t seed = 2; seed < (kUnderSanitizer ? 3 : 4); ++seed) {
      cuda::Fake().schedule_seed = seed;
      cuda::Fake().resident_blocks = static_cast<int>(seed % 3 + 1);
      AttentionCase other({1, 60 * seed, 20, 1, 1, head_dim, ANNULUS_BF16});
      Run(device, other);
      ClearGradients(c);
      device.AttendBackward(c);
      ExpectGradientsMatch(c);
      EXPECT_EQ(c.dq_data, first.dq_data);
      EXPECT_EQ(c.dk_data, first.dk_data);
      EXPECT_EQ(c.dv_data, first.dv_data);
    }
    const size_t alive = cuda::Fake().memory.size();
    device.AttendBackward(c);
    EXPECT_EQ(cuda::Fake().memory.size(), alive);  // nothing is allocated for a call
  }
}

// Row 150 of one input is poisoned; under a causal mask only those may notice who see it.
TEST_F(HopperBackward, MaskedNaNNeverLeaks) {
  TestDevice device(CudaPlugin());
  for (const int64_t head_dim : {64, 128}) {
    for (int input = 0; input < 4; ++input) {
      if (kUnderSanitizer && (input != 1 || head_dim == 64)) continue;
      AttentionCase c({1, 200, 200, 1, 1, head_dim, ANNULUS_BF16, Causal(0)});
      AttentionCase clean = c;
      device.Attend(clean);
      device.AttendBackward(clean);
      device.Attend(c);
      const annulusTensor inputs[] = {c.q(), c.k(), c.v(), c.d_o()};
      AttentionCase::FillRow(inputs[input], 0, 150, 0, input == 2 ? kInfinity : kNaN);
      cuda::Fake().launches.clear();
      device.AttendBackward(c);
      ExpectHopper();
      const bool of_query = input == 0 || input == 3;
      for (int64_t row = 0; row < 200; ++row) {
        SCOPED_TRACE(testing::Message()
                     << "head size " << head_dim << " input " << input << " row " << row);
        const size_t at = row * head_dim;
        const bool dq_finite = of_query ? row != 150 : row < 150;
        const bool dk_finite = of_query ? row > 150 : row != 150;
        ASSERT_EQ(std::isfinite(c.dq_data[at]), dq_finite);
        if (dq_finite) {
          ASSERT_NEAR(c.dq_data[at], clean.dq_data[at], 1e-3);
        }
        if (!of_query) continue;  // through a query that sees it
        ASSERT_EQ(std::isfinite(c.dk_data[at]), dk_finite);
        if (dk_finite) {
          ASSERT_NEAR(c.dk_data[at], clean.dk_data[at], 1e-3);
        }
      }
    }
  }
}

// A row whose lse is -inf gives no gradient, though the mask shows it keys and it holds anything.
TEST_F(HopperBackward, DeadRowsContributeNothing) {
  TestDevice device(CudaPlugin());
  for (const bool strange : {false, true}) {
    AttentionCase c({1, 140, 140, 1, 1, 64, ANNULUS_BF16});
    device.Attend(c);
    c.lse_data[7] = -kInfinity;
    AttentionCase without = c;
    without.q_spans = {{0, 7, 0, 1}, {8, 132, 8, 1}};
    if (strange) {
      AttentionCase::FillRow(c.q(), 0, 7, 0, kNaN);
      AttentionCase::FillRow(c.d_o(), 0, 7, 0, kInfinity);
    }
    device.AttendBackward(without);
    device.AttendBackward(c);
    for (int i = 0; i < 64; ++i) EXPECT_EQ(c.dq_data[7 * 64 + i], 0.0f);
    for (size_t i = 0; i < c.dk_data.size(); ++i) {
      ASSERT_NEAR(c.dk_data[i], without.dk_data[i], 2e-3);
      ASSERT_NEAR(c.dv_data[i], without.dv_data[i], 2e-3);
    }
  }
}

TEST_F(HopperBackward, GradientsAddToWhatIsThereAndRowsMayBeElsewhere) {
  TestDevice device(CudaPlugin());
  AttentionCase c({1, 150, 140, 2, 1, 64, ANNULUS_F16, Causal(0)});
  Run(device, c);
  AttentionCase moved = c;
  for (auto* gradient : {&moved.dq_data, &moved.dk_data, &moved.dv_data}) {
    gradient->assign(gradient->size(), 1.0f);
  }
  moved.q_spans = moved.kv_spans = {{16, 100, 16, 1}};
  AttentionCase there = moved;
  annulusAttendBackwardArgs args = moved.BackwardArgs();
  device.Check(device.api().attend_backward(device.stream(), &args));
  args = there.BackwardArgs();
  args.lse.data += 16 * 2;
  args.delta.data += 16 * 2;
  args.lse.rows = args.delta.rows = args.dq.rows = args.dk.rows = args.dv.rows = 100;
  args.dq_row_offset = args.dkv_row_offset = -16;
  device.Check(device.api().attend_backward(device.stream(), &args));
  for (size_t i = 0; i < 100 * 64; ++i) {
    ASSERT_EQ(there.dk_data[i], moved.dk_data[16 * 64 + i]);
    ASSERT_EQ(there.dv_data[i], moved.dv_data[16 * 64 + i]);
  }
  for (size_t i = 0; i < 100 * 2 * 64; ++i) {
    ASSERT_EQ(there.dq_data[i], moved.dq_data[16 * 2 * 64 + i]);
  }
  EXPECT_EQ(moved.dk_data[0], 1.0f);
  EXPECT_NE(moved.dk_data[16 * 64], 1.0f);
}

// What the copy engine cannot add to goes to the portable kernels, or is refused.
TEST_F(HopperBackward, UnalignedRowsGoThePortableWay) {
  AttentionCase c({1, 40, 50, 1, 1, 16, ANNULUS_BF16});
  TestDevice device(CudaPlugin());
  Run(device, c);
  std::vector<float> moved(c.dq_data.size() + 1);
  annulusAttendBackwardArgs args = c.BackwardArgs();
  args.dq.data = moved.data() + 1;
  if (reinterpret_cast<uintptr_t>(args.dq.data) % 16 == 0) args.dq.data = moved.data();
  cuda::Fake().launches.clear();
  device.Check(device.api().attend_backward(device.stream(), &args));
  EXPECT_EQ(cuda::Fake().launches.at(0).kernel, cuda::KernelId::kQueryGradients64);
  EXPECT_LE(RelativeRmse(std::vector<float>(moved.begin() + 1, moved.end()),
                         std::vector<double>(c.dq_data.begin(), c.dq_data.end())),
            3e-3);
}

}  // namespace
}  // namespace annulus::kernels
