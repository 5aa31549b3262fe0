// SPDX-License-Identifier: Apache-2.0
// The CUDA plugin on a GPU against the float64 reference: annulus-gpu-test. Skips where there is no
// GPU. The suite GpuSmall is what the sanitizers run.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>

#include "kernels/tensor_view.h"
#include "tests/gpu/gpu_device.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A case whose arrays are on the device while it lives. Download brings back what kernels write.
class OnDevice {
 public:
  OnDevice(const GpuDevice& gpu, AttentionCase& c)
      : gpu_(gpu),
        c_(c),
        q(gpu, c.q_data.data(), c.q_data.size()),
        k(gpu, c.k_data.data(), c.k_data.size()),
        v(gpu, c.v_data.data(), c.v_data.size()),
        d_o(gpu, c.do_data.data(), c.do_data.size()),
        o(gpu, c.o_data.data(), c.o_data.size() * 4),
        lse(gpu, c.lse_data.data(), c.lse_data.size() * 4),
        delta(gpu, c.delta_data.data(), c.delta_data.size() * 4),
        dq(gpu, c.dq_data.data(), c.dq_data.size() * 4),
        dk(gpu, c.dk_data.data(), c.dk_data.size() * 4),
        dv(gpu, c.dv_data.data(), c.dv_data.size() * 4) {}

  annulusAttendArgs Args() {
    annulusAttendArgs args = c_.Args();
    args.q.data = q.data();
    args.k.data = k.data();
    args.v.data = v.data();
    args.o.data = o.data();
    args.lse.data = static_cast<float*>(lse.data());
    return args;
  }
  annulusAttendBackwardArgs BackwardArgs() {
    annulusAttendBackwardArgs args = c_.BackwardArgs();
    args.q.data = q.data();
    args.k.data = k.data();
    args.v.data = v.data();
    args.d_o.data = d_o.data();
    args.dq.data = dq.data();
    args.dk.data = dk.data();
    args.dv.data = dv.data();
    args.lse.data = static_cast<float*>(lse.data());
    args.delta.data = static_cast<float*>(delta.data());
    return args;
  }

  void Attend() {
    const annulusAttendArgs args = Args();
    gpu_.Check(gpu_.api().attend(gpu_.stream(), &args));
  }
  void AttendBackward() {
    const annulusAttendBackwardArgs args = BackwardArgs();
    const annulusTensor state = Args().o;
    gpu_.Check(gpu_.api().backward_prepare(gpu_.stream(), &args.d_o, &state, &args.delta));
    gpu_.Check(gpu_.api().attend_backward(gpu_.stream(), &args));
  }
  void Download() {
    gpu_.Drain();
    o.Download(c_.o_data.data());
    lse.Download(c_.lse_data.data());
    delta.Download(c_.delta_data.data());
    dq.Download(c_.dq_data.data());
    dk.Download(c_.dk_data.data());
    dv.Download(c_.dv_data.data());
  }

 private:
  const GpuDevice& gpu_;
  AttentionCase& c_;

 public:
  const DeviceCopy q, k, v, d_o, o, lse, delta, dq, dk, dv;
};

// What cuDNN computes is rounded to 16 bits once more before it is added.
constexpr char kCudnn[] = "cudnn";
constexpr double kCudnnSlack = 1.75;

class Gpu : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!gpu_.missing().empty()) GTEST_SKIP() << gpu_.missing();
  }

  void RunBoth(AttentionCase& c) const { RunBothOn(gpu_, c); }
  static void RunBothOn(const GpuDevice& gpu, AttentionCase& c) {
    OnDevice on_device(gpu, c);
    on_device.Attend();
    on_device.AttendBackward();
    on_device.Download();
  }

  void ExpectMatches(const Shape& shape, uint32_t seed = 1) {
    AttentionCase c(shape, seed);
    RunBoth(c);
    SCOPED_TRACE(testing::Message()
                 << "head size " << shape.head_dim << " dtype " << shape.dtype << " rows "
                 << shape.q_rows << " x " << shape.kv_rows << " mask " << shape.mask.kind << " "
                 << shape.mask.causal_offset << " " << shape.mask.window_left);
    ExpectForwardMatches(c, slack());
    ExpectGradientsMatch(c, slack());
  }

  bool OnCudnn() const { return std::strcmp(GetParam(), kCudnn) == 0; }
  double slack() const { return OnCudnn() ? kCudnnSlack : 1.0; }

  const GpuDevice gpu_{GetParam()};
};
using GpuSmall = Gpu;

const auto kProviders = testing::Values("auto", "portable", kCudnn);
const auto kProviderName = [](const auto& info) { return std::string(info.param); };
INSTANTIATE_TEST_SUITE_P(Providers, Gpu, kProviders, kProviderName);
INSTANTIATE_TEST_SUITE_P(Providers, GpuSmall, kProviders, kProviderName);

TEST_P(GpuSmall, HeadSizesAndDtypes) {
  int trial = 0;
  const annulusMask masks[] = {Full(), Causal(23), Causal(-30), Causal(20, 25), Full(15)};
  for (const int64_t head_dim : {16, 64, 72, 128, 256}) {
    for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16}) {
      ExpectMatches({2, 140, 150, 4, 2, head_dim, dtype, masks[trial++ % 5]});
    }
  }
}

TEST_P(GpuSmall, RowOperations) {
  AttentionCase c({2, 7, 9, 3, 1, 40, ANNULUS_BF16});
  OnDevice on_device(gpu_, c);
  const annulusComputeV1& api = gpu_.api();
  const annulusAttendArgs args = on_device.Args();
  on_device.Attend();
  gpu_.Check(api.merge(gpu_.stream(), &args.o, &args.lse, &args.o, &args.lse));
  on_device.Download();
  const std::vector<float> o = c.o_data;
  const float lse = c.lse_data[0];
  gpu_.Check(api.accumulate(gpu_.stream(), static_cast<float*>(on_device.dq.data()),
                            on_device.d_o.data(), ANNULUS_BF16,
                            static_cast<int64_t>(c.dq_data.size())));
  gpu_.Check(api.finish(gpu_.stream(), &args.o, &args.q));
  gpu_.Check(api.reset(gpu_.stream(), &args.o, &args.lse));
  gpu_.Check(api.fill_zero(gpu_.stream(), on_device.dk.data(), c.dk_data.size() * 4));
  on_device.Download();
  on_device.q.Download(c.q_data.data());
  AttentionCase once({2, 7, 9, 3, 1, 40, ANNULUS_BF16});
  once.o_data = o;
  const ReferenceForward want = AttendReference(once.Inputs(), AllRows(7));
  EXPECT_NEAR(lse, want.lse[0] + std::log(2.0), 1e-5);  // merged with itself
  for (size_t i = 0; i < o.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, c.do_data.data() + 2 * i, 2);
    EXPECT_EQ(c.dq_data[i], Bf16ToFloat(bits));
    std::memcpy(&bits, c.q_data.data() + 2 * i, 2);
    EXPECT_EQ(bits, FloatToBf16(o[i]));
    EXPECT_EQ(c.o_data[i], 0.0f);
  }
}

TEST_P(Gpu, EveryHeadSize) {
  for (int64_t head_dim = 16; head_dim <= 256; head_dim += 8) {
    ExpectMatches(
        {1, 150, 170, 2, 1, head_dim, head_dim % 16 == 0 ? ANNULUS_BF16 : ANNULUS_F32, Causal(20)});
  }
}

TEST_P(Gpu, RandomShapes) {
  std::mt19937 rng(7);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  for (int trial = 0; trial < 60; ++trial) {
    const int64_t kv_heads = pick(1, 3);
    const int64_t q_rows = pick(1, 700);
    const int64_t kv_rows = pick(2, 700);
    const annulusMask masks[] = {Full(), Causal(kv_rows - q_rows), Causal(pick(-20, 200)),
                                 Causal(kv_rows - q_rows, pick(1, 300)), Full(pick(1, 300))};
    const annulusDtype dtypes[] = {ANNULUS_BF16, ANNULUS_F16, ANNULUS_F32};
    ExpectMatches({pick(1, 2), q_rows, kv_rows, kv_heads * pick(1, 4), kv_heads, 8 * pick(2, 32),
                   dtypes[trial % 3], masks[trial % 5]},
                  trial);
  }
}

// As on a ring: any layout, cut into pieces, in place.
TEST_P(Gpu, AnyLayoutInAnyPieces) {
  std::mt19937 rng(3);
  for (int trial = 0; trial < 12; ++trial) {
    const int64_t head_dim = trial % 3 == 0 ? 40 : trial % 3 == 1 ? 64 : 128;
    AttentionCase c({1, 600, 840, 2, 1, head_dim, trial % 2 == 0 ? ANNULUS_BF16 : ANNULUS_F32,
                     Causal(240, trial % 4 == 3 ? 190 : -1)});
    c.q_spans = trial % 2 == 0 ? ZigzagSpans(600, 3) : StripedSpans(600, 4);
    c.kv_spans = trial % 4 < 2 ? ZigzagSpans(840, 4) : StripedSpans(840, 3);
    OnDevice on_device(gpu_, c);
    annulusAttendArgs args = on_device.Args();
    const auto kv_lists = SplitSpans(c.kv_spans, 3, &rng);
    for (const auto& q_list : SplitSpans(c.q_spans, 2, &rng)) {
      for (const auto& kv_list : kv_lists) {
        args.q_spans = q_list.data();
        args.q_span_count = q_list.size();
        args.kv_spans = kv_list.data();
        args.kv_span_count = kv_list.size();
        gpu_.Check(gpu_.api().attend(gpu_.stream(), &args));
      }
    }
    on_device.AttendBackward();
    on_device.Download();
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    ExpectForwardMatches(c, slack());
    ExpectGradientsMatch(c, slack());
  }
}

TEST_P(Gpu, ManyMergesStayWithinTheGates) {
  for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16}) {
    AttentionCase c({1, 64, 4096, 2, 1, 128, dtype, Full()});
    OnDevice on_device(gpu_, c);
    for (int64_t step = 0; step < 64; ++step) {
      c.kv_spans = {{64 * step, 64, 64 * step, 1}};
      on_device.Attend();
    }
    on_device.Download();
    c.kv_spans = {{0, 4096, 0, 1}};
    ExpectForwardMatches(c, slack());
  }
}

TEST_P(Gpu, MaskedNaNNeverLeaks) {
  if (OnCudnn()) GTEST_SKIP() << "cuDNN multiplies what is masked by zero";
  for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16}) {
    for (const int64_t head_dim : {24, 64, 128}) {
      for (const bool in_v : {false, true}) {
        AttentionCase c({1, 400, 400, 1, 1, head_dim, dtype, Causal(0)});
        AttentionCase::FillRow(in_v ? c.v() : c.k(), 0, 170, 0, kNaN);
        RunBoth(c);
        for (int64_t row = 0; row < 400; ++row) {
          ASSERT_EQ(std::isfinite(c.o_data[row * head_dim]), row < 170) << row;
          ASSERT_EQ(std::isfinite(c.dq_data[row * head_dim]), row < 170) << row;
        }
      }
    }
  }
}

TEST_P(Gpu, TenRunsGiveTheSameBytes) {
  if (OnCudnn()) GTEST_SKIP() << "cuDNN's backward adds up in any order";
  const GpuDevice deterministic(GetParam(), true);
  ASSERT_EQ(deterministic.missing(), "");
  for (const int64_t head_dim : {64, 128}) {
    const Shape shape = {1, 1500, 1700, 8, 2, head_dim, ANNULUS_BF16, Causal(200)};
    AttentionCase first(shape);
    RunBothOn(deterministic, first);
    for (int run = 1; run < 10; ++run) {
      AttentionCase again(shape);
      RunBothOn(deterministic, again);
      ASSERT_EQ(again.o_data, first.o_data);
      ASSERT_EQ(again.lse_data, first.lse_data);
      ASSERT_EQ(again.dq_data, first.dq_data);
      ASSERT_EQ(again.dk_data, first.dk_data);
      ASSERT_EQ(again.dv_data, first.dv_data);
    }
  }
}

}  // namespace
}  // namespace annulus::kernels
