// SPDX-License-Identifier: Apache-2.0
// The bodies of the portable kernels, run thread by thread on the host through the whole plugin,
// against the float64 reference.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
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

class EmulatedKernels : public testing::Test {
 protected:
  void SetUp() override {
    cuda::Fake() = cuda::FakeCuda();
    cuda::Fake().properties.capability_major = 8;  // no other kernels than these
  }
};

void RunBoth(TestDevice& device, AttentionCase& c) {
  device.Attend(c);
  device.AttendBackward(c);
}

TEST_F(EmulatedKernels, HeadSizesAndDtypes) {
  TestDevice device(CudaPlugin());
  int trial = 0;
  for (const int64_t head_dim : {16, 40, 64, 72, 128, 136, 256}) {
    for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16}) {
      if (kUnderSanitizer && dtype == ANNULUS_F16) continue;  // as bf16, but for the conversion
      const annulusMask masks[] = {Full(), Causal(23), Causal(-30), Causal(20, 25), Full(15)};
      AttentionCase c({1, 70, 75, 2, 1, head_dim, dtype, masks[trial++ % 5]}, trial);
      SCOPED_TRACE(testing::Message() << "head size " << head_dim << " dtype " << dtype);
      RunBoth(device, c);
      ExpectForwardMatches(c);
      ExpectGradientsMatch(c);
    }
  }
}

TEST_F(EmulatedKernels, RandomShapes) {
  std::mt19937 rng(7);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  const annulusDtype dtypes[] = {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16, ANNULUS_BF16};
  TestDevice device(CudaPlugin());
  for (int trial = 0; trial < (kUnderSanitizer ? 3 : 15); ++trial) {
    const int64_t kv_heads = pick(1, 2);
    const int64_t q_rows = pick(1, 120);
    const int64_t kv_rows = pick(2, 120);  // of one key alone dq and dk are zero
    const annulusMask masks[] = {Full(), Causal(kv_rows - q_rows), Causal(pick(-20, 100)),
                                 Causal(kv_rows - q_rows, pick(1, 60)), Full(pick(1, 100))};
    AttentionCase c({pick(1, 2), q_rows, kv_rows, kv_heads * pick(1, 3), kv_heads, 8 * pick(2, 10),
                     dtypes[trial % 4], masks[trial % 5], trial % 7 == 0 ? -0.3f : 0.0f},
                    trial);
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    RunBoth(device, c);
    ExpectForwardMatches(c);
    ExpectGradientsMatch(c);
  }
}

// As on a ring: the pieces of any cut of queries and keys, in place, give the whole.
TEST_F(EmulatedKernels, AnyLayoutInAnyPieces) {
  std::mt19937 rng(3);
  TestDevice device(CudaPlugin());
  for (int trial = 0; trial < 4; ++trial) {
    AttentionCase c({1, 70, 100, 1, 1, 24, trial % 2 == 0 ? ANNULUS_F32 : ANNULUS_BF16,
                     Causal(30, trial == 3 ? 50 : -1)});
    c.q_spans = trial % 2 == 0 ? ZigzagSpans(70, 2) : StripedSpans(70, 3);
    c.kv_spans = trial < 2 ? ZigzagSpans(100, 2) : StripedSpans(100, 3);
    const auto q_lists = SplitSpans(c.q_spans, 2, &rng);
    const auto kv_lists = SplitSpans(c.kv_spans, 2, &rng);
    annulusAttendArgs args = c.Args();
    annulusAttendBackwardArgs backward = c.BackwardArgs();
    for (const auto& q_list : q_lists) {
      for (const auto& kv_list : kv_lists) {
        args.q_spans = q_list.data();
        args.q_span_count = q_list.size();
        args.kv_spans = kv_list.data();
        args.kv_span_count = kv_list.size();
        device.Attend(args);
      }
    }
    const annulusTensor d_o = c.d_o();
    const annulusTensor o = c.o();
    const annulusRowStat delta = c.delta();
    device.Check(device.api().backward_prepare(device.stream(), &d_o, &o, &delta));
    for (const auto& q_list : q_lists) {
      for (const auto& kv_list : kv_lists) {
        backward.q_spans = q_list.data();
        backward.q_span_count = q_list.size();
        backward.kv_spans = kv_list.data();
        backward.kv_span_count = kv_list.size();
        device.Check(device.api().attend_backward(device.stream(), &backward));
      }
    }
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    ExpectForwardMatches(c);
    ExpectGradientsMatch(c);
  }
}

// The matrix units take one format; what is mixed goes the plain way.
TEST_F(EmulatedKernels, MixedDtypes) {
  AttentionCase c({1, 40, 50, 2, 1, 32, ANNULUS_BF16});
  AttentionCase other({1, 40, 50, 2, 1, 32, ANNULUS_F16});
  c.v_data = other.v_data;
  annulusAttendArgs args = c.Args();
  args.v.dtype = ANNULUS_F16;
  TestDevice device(CudaPlugin());
  device.Attend(args);
  EXPECT_EQ(cuda::Fake().launches.at(0).kernel, cuda::KernelId::kAttend64);
  ReferenceInputs inputs = c.Inputs();
  inputs.v = args.v;
  const ReferenceForward want = AttendReference(inputs, AllRows(40));
  EXPECT_LE(RelativeRmse(c.o_data, want.o), 5e-6);
}

// Rows that do not start on 16 bytes are read element by element.
TEST_F(EmulatedKernels, UnalignedRows) {
  AttentionCase c({1, 40, 50, 1, 1, 16, ANNULUS_BF16});
  std::vector<uint8_t> moved(c.k_data.size() + 2);
  std::memcpy(moved.data() + 2, c.k_data.data(), c.k_data.size());
  annulusAttendArgs args = c.Args();
  args.k.data = moved.data() + 2;
  TestDevice(CudaPlugin()).Attend(args);
  ExpectForwardMatches(c);
}

TEST_F(EmulatedKernels, MoreSpansThanALaunchHolds) {
  AttentionCase c({1, 70, 100, 1, 1, 16, ANNULUS_F32, Causal(30)});
  c.q_spans.clear();
  for (int64_t row = 0; row < 70; row += 2) c.q_spans.push_back({row, 2, row, 1});
  TestDevice device(CudaPlugin());
  device.Attend(c);
  EXPECT_EQ(cuda::Fake().launches.size(), 2u);
  ExpectForwardMatches(c);
}

TEST_F(EmulatedKernels, RowsMayBeElsewhere) {
  AttentionCase whole({1, 64, 64, 1, 1, 16, ANNULUS_F32, Causal(0)});
  TestDevice device(CudaPlugin());
  RunBoth(device, whole);
  AttentionCase half = whole;
  half.q_spans = half.kv_spans = {{32, 32, 32, 1}};
  AttentionCase moved = half;
  for (AttentionCase* c : {&half, &moved}) {
    for (auto* gradient : {&c->dq_data, &c->dk_data, &c->dv_data}) {
      gradient->assign(gradient->size(), 0.0f);
    }
  }
  annulusAttendBackwardArgs args = half.BackwardArgs();
  device.Check(device.api().attend_backward(device.stream(), &args));
  args = moved.BackwardArgs();
  args.lse.data += 32;
  args.delta.data += 32;
  args.lse.rows = args.delta.rows = args.dq.rows = args.dk.rows = args.dv.rows = 32;
  args.dq_row_offset = args.dkv_row_offset = -32;
  device.Check(device.api().attend_backward(device.stream(), &args));
  for (size_t i = 0; i < 32 * 16; ++i) {
    ASSERT_EQ(moved.dq_data[i], half.dq_data[32 * 16 + i]);
    ASSERT_EQ(moved.dk_data[i], half.dk_data[32 * 16 + i]);
    ASSERT_EQ(moved.dv_data[i], half.dv_data[32 * 16 + i]);
  }
  AttentionCase forward({1, 64, 64, 1, 1, 16, ANNULUS_F32, Causal(0)});
  forward.q_spans = {{32, 32, 32, 1}};
  annulusAttendArgs attend = forward.Args();
  attend.o.rows = attend.lse.rows = 32;
  attend.o_row_offset = -32;
  device.Attend(attend);
  for (size_t i = 0; i < 32; ++i) ASSERT_NEAR(forward.lse_data[i], whole.lse_data[32 + i], 1e-6);
}

TEST_F(EmulatedKernels, RowsWithoutKeysKeepTheirBytes) {
  AttentionCase c({1, 100, 100, 1, 1, 32, ANNULUS_F32, Causal(-60)});
  c.o_data[0] = 0.125f;
  c.lse_data[0] = 3.1f;
  TestDevice device(CudaPlugin());
  device.Attend(c);
  EXPECT_EQ(c.o_data[0], 0.125f);
  EXPECT_EQ(c.lse_data[0], 3.1f);
  for (int row = 1; row < 60; ++row) {
    EXPECT_EQ(c.lse_data[row], -kInfinity);
    EXPECT_EQ(c.o_data[row * 32], 0.0f);
  }
  EXPECT_GT(c.lse_data[60], -kInfinity);
  for (int64_t row = 0; row < 60; ++row) AttentionCase::FillRow(c.q(), 0, row, 0, kNaN);
  c.lse_data[0] = -kInfinity;
  device.AttendBackward(c);
  for (int64_t i = 0; i < 60 * 32; ++i) ASSERT_EQ(c.dq_data[i], 0.0f);
  for (const float value : c.dk_data) ASSERT_TRUE(std::isfinite(value));
  for (const float value : c.dv_data) ASSERT_TRUE(std::isfinite(value));
}

// A row that no key may see is -inf in lse; though the mask shows it keys, it gives no gradient.
TEST_F(EmulatedKernels, DeadRowsContributeNothing) {
  AttentionCase c({1, 40, 40, 1, 1, 16});
  TestDevice device(CudaPlugin());
  device.Attend(c);
  c.lse_data[7] = -kInfinity;
  AttentionCase::FillRow(c.q(), 0, 7, 0, kNaN);
  AttentionCase::FillRow(c.d_o(), 0, 7, 0, kInfinity);
  device.AttendBackward(c);
  EXPECT_EQ(c.dq_data[7 * 16], 0.0f);
  for (const float value : c.dk_data) ASSERT_TRUE(std::isfinite(value));
  for (const float value : c.dv_data) ASSERT_TRUE(std::isfinite(value));
}

TEST_F(EmulatedKernels, IdentityStateIsNeverRead) {
  AttentionCase c({1, 20, 20, 1, 1, 16});
  c.o_data.assign(c.o_data.size(), kNaN);
  TestDevice(CudaPlugin()).Attend(c);
  ExpectForwardMatches(c);
}

// Row 70 of one input is poisoned; under a causal mask only queries from 70 on may notice.
TEST_F(EmulatedKernels, MaskedNaNNeverLeaks) {
  const Shape shape = {1, 130, 130, 1, 1, 24, ANNULUS_F32, Causal(0)};
  TestDevice device(CudaPlugin());
  AttentionCase clean(shape);
  RunBoth(device, clean);
  for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16}) {
    for (const bool in_v : {false, true}) {
      Shape of_dtype = shape;
      of_dtype.dtype = dtype;
      AttentionCase whole(of_dtype);
      AttentionCase c(of_dtype);
      AttentionCase::FillRow(in_v ? c.v() : c.k(), 0, 70, 0, in_v ? kInfinity : kNaN);
      device.Attend(whole);
      device.Attend(c);
      for (int64_t row = 0; row < 130; ++row) {
        SCOPED_TRACE(testing::Message() << "dtype " << dtype << " in v " << in_v << " row " << row);
        EXPECT_EQ(std::isfinite(c.o_data[row * 24]), row < 70);
        if (row >= 70) continue;
        EXPECT_EQ(c.lse_data[row], whole.lse_data[row]);
        // Where a tile holds what is not finite, weights are not rounded.
        EXPECT_NEAR(c.o_data[row * 24], whole.o_data[row * 24], 2e-2);
      }
    }
  }
  for (int input = 0; input < 4; ++input) {
    AttentionCase c(shape);
    device.Attend(c);
    const annulusTensor inputs[] = {c.q(), c.k(), c.v(), c.d_o()};
    AttentionCase::FillRow(inputs[input], 0, 70, 0, input == 2 ? kInfinity : kNaN);
    device.AttendBackward(c);
    const bool of_query = input == 0 || input == 3;
    for (int64_t row = 0; row < 130; ++row) {
      SCOPED_TRACE(testing::Message() << "input " << input << " row " << row);
      EXPECT_EQ(std::isfinite(c.dq_data[row * 24]), of_query ? row != 70 : row < 70);
      EXPECT_EQ(std::isfinite(c.dk_data[row * 24]), of_query ? row > 70 : row != 70);
    }
  }
}

TEST_F(EmulatedKernels, LargeScoresDoNotOverflow) {
  AttentionCase c({1, 40, 100, 1, 1, 64, ANNULUS_F32, Causal(60), 40.0f});
  TestDevice(CudaPlugin()).Attend(c);
  const ReferenceForward want = AttendReference(c.Inputs(), AllRows(40));
  for (size_t i = 0; i < want.lse.size(); ++i) {
    EXPECT_NEAR(c.lse_data[i], want.lse[i], 2e-6 * std::fabs(want.lse[i]) + 1e-3);
  }
  for (const float value : c.o_data) EXPECT_TRUE(std::isfinite(value));
}

TEST_F(EmulatedKernels, GradientsAddToWhatIsThere) {
  const Shape shape = {1, 50, 60, 2, 1, 16};
  TestDevice device(CudaPlugin());
  AttentionCase zero(shape);
  RunBoth(device, zero);
  AttentionCase one(shape);
  for (auto* gradient : {&one.dq_data, &one.dk_data, &one.dv_data}) {
    gradient->assign(gradient->size(), 1.0f);
  }
  RunBoth(device, one);
  for (size_t i = 0; i < one.dk_data.size(); ++i) {
    ASSERT_NEAR(one.dk_data[i], 1.0f + zero.dk_data[i], 1e-5);
    ASSERT_NEAR(one.dv_data[i], 1.0f + zero.dv_data[i], 1e-5);
  }
  for (size_t i = 0; i < one.dq_data.size(); ++i) {
    ASSERT_NEAR(one.dq_data[i], 1.0f + zero.dq_data[i], 1e-5);
  }
}

TEST_F(EmulatedKernels, RowOperations) {
  TestDevice device(CudaPlugin());
  AttentionCase c({2, 7, 9, 3, 1, 40, ANNULUS_BF16});
  AttentionCase other({2, 7, 9, 3, 1, 40, ANNULUS_BF16}, 2);
  device.Attend(c);
  device.Attend(other);
  other.lse_data[3] = -kInfinity;
  for (int i = 0; i < 40; ++i) other.o_data[3 * 40 + i] = kNaN;
  AttentionCase want = c;
  const annulusTensor d_o = c.d_o();
  const annulusTensor o = c.o();
  const annulusTensor o2 = other.o();
  const annulusRowStat lse = c.lse();
  const annulusRowStat lse2 = other.lse();
  const annulusRowStat delta = c.delta();
  const annulusTensor want_o = want.o();
  const annulusRowStat want_lse = want.lse();
  const annulusRowStat want_delta = want.delta();
  CpuDevice cpu;
  device.Check(device.api().backward_prepare(device.stream(), &d_o, &o, &delta));
  cpu.Check(cpu.api().backward_prepare(cpu.stream(), &d_o, &o, &want_delta));
  for (size_t i = 0; i < c.delta_data.size(); ++i) {
    EXPECT_NEAR(c.delta_data[i], want.delta_data[i], 1e-5);
  }
  device.Check(device.api().merge(device.stream(), &o, &lse, &o2, &lse2));
  cpu.Check(cpu.api().merge(cpu.stream(), &want_o, &want_lse, &o2, &lse2));
  for (size_t i = 0; i < c.o_data.size(); ++i) EXPECT_NEAR(c.o_data[i], want.o_data[i], 1e-6);
  EXPECT_EQ(c.lse_data, want.lse_data);

  std::vector<float> sum = want.o_data;
  device.Check(device.api().accumulate(device.stream(), sum.data(), c.do_data.data(), ANNULUS_BF16,
                                       static_cast<int64_t>(sum.size())));
  for (size_t i = 0; i < sum.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, c.do_data.data() + 2 * i, 2);
    EXPECT_EQ(sum[i], want.o_data[i] + Bf16ToFloat(bits));
  }
  const annulusTensor rounded = c.q();
  device.Check(device.api().finish(device.stream(), &o, &rounded));
  for (size_t i = 0; i < c.o_data.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, c.q_data.data() + 2 * i, 2);
    EXPECT_EQ(bits, FloatToBf16(c.o_data[i]));
  }
  device.Check(device.api().reset(device.stream(), &o, &lse));
  for (const float value : c.o_data) EXPECT_EQ(value, 0.0f);
  for (const float value : c.lse_data) EXPECT_EQ(value, -kInfinity);
  device.Check(device.api().fill_zero(device.stream(), sum.data(), 4));
  EXPECT_EQ(sum[0], 0.0f);
}

}  // namespace
}  // namespace annulus::kernels
