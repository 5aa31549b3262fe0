// SPDX-License-Identifier: Apache-2.0
// The provider cudnn through the whole plugin, over a cuDNN and a driver of the host, against the
// float64 reference.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

#include "kernels/cuda/cuda_plugin.h"
#include "kernels/cuda/cudnn/plan_cache.h"
#include "kernels/cuda/cudnn/scratch.h"
#include "kernels/tensor_view.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/cuda/fake_cudnn.h"
#include "tests/unit/cuda/fake_driver.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

using cuda::Fake;
using cuda::FakeCudnn;
using cuda::KernelId;
using testing::HasSubstr;

// Each piece is rounded to 16 bits before it is added: twice the variance, for the gradients with
// what rounding the stand-in for o adds three times.
constexpr double kSlack = 1.75;

class CudnnProviderTest : public testing::Test {
 protected:
  void SetUp() override {
    Fake() = cuda::FakeCuda();
    FakeCudnn() = cuda::FakeCudnnState();
  }
  void TearDown() override {
    EXPECT_EQ(Fake().memory.size() + Fake().streams.size(), 0u);
    EXPECT_EQ(FakeCudnn().plans, 0);
    EXPECT_EQ(Fake().drivers, 0);
  }

  void RunBoth(TestDevice& device, AttentionCase& c) {
    device.Attend(c);
    device.AttendBackward(c);
    ExpectForwardMatches(c, kSlack);
    ExpectGradientsMatch(c, kSlack);
  }

  static annulusComputeOptions Options() {
    annulusComputeOptions options = {sizeof(options), 0, 1};
    options.provider = "cudnn";
    return options;
  }

  const annulusComputeV1* api_ = CudaPlugin();
};

TEST_F(CudnnProviderTest, RandomShapes) {
  std::mt19937 rng(5);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  TestDevice device(api_, 1, "cudnn");
  for (int trial = 0; trial < (kUnderSanitizer ? 6 : 12); ++trial) {
    const int64_t kv_heads = pick(1, 2);
    const int64_t q_rows = pick(40, 150);
    const int64_t kv_rows = pick(40, 150);
    const annulusMask masks[] = {Full(), Causal(kv_rows - q_rows), Causal(pick(-40, 80)),
                                 Causal(0, pick(20, 90))};
    AttentionCase c({pick(1, 2), q_rows, kv_rows, kv_heads * pick(1, 2), kv_heads, 8 * pick(2, 6),
                     trial % 2 == 0 ? ANNULUS_BF16 : ANNULUS_F16, masks[trial % 4]},
                    trial);
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    RunBoth(device, c);
  }
  EXPECT_GT(FakeCudnn().executed.size(), kUnderSanitizer ? 0u : 4u);
}

TEST_F(CudnnProviderTest, AnyLayoutInAnyPieces) {
  std::mt19937 rng(3);
  TestDevice device(api_, 1, "cudnn");
  for (int trial = 0; trial < (kUnderSanitizer ? 1 : 3); ++trial) {
    AttentionCase c({1, 300, 420, 2, 1, 16, ANNULUS_BF16, Causal(120, trial % 3 == 2 ? 90 : -1)},
                    trial);
    c.q_spans = trial % 2 == 0 ? ZigzagSpans(300, 1) : StripedSpans(300, 2);
    c.kv_spans = trial % 2 == 0 ? ZigzagSpans(420, 2) : StripedSpans(420, 2);
    annulusAttendArgs args = c.Args();
    const auto kv_lists = SplitSpans(c.kv_spans, 2, &rng);
    for (const auto& kv_list : kv_lists) {
      args.kv_spans = kv_list.data();
      args.kv_span_count = kv_list.size();
      device.Attend(args);
    }
    device.AttendBackward(c);
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    ExpectForwardMatches(c, kSlack);
    ExpectGradientsMatch(c, kSlack);
  }
  EXPECT_GT(FakeCudnn().executed.size(), kUnderSanitizer ? 0u : 4u);
}

// Rows of the accumulators are not the rows of q and k, and what is there is added to.
TEST_F(CudnnProviderTest, AccumulatesWhereItIsTold) {
  TestDevice device(api_, 1, "cudnn");
  AttentionCase c({1, 200, 200, 2, 1, 16, ANNULUS_F16, Causal(0)});
  AttentionCase whole = c;
  device.Attend(whole);
  device.AttendBackward(whole);
  c.lse_data = whole.lse_data;
  c.delta_data = whole.delta_data;
  annulusAttendBackwardArgs args = c.BackwardArgs();
  const annulusSpan half = {100, 100, 100, 1};
  const annulusSpan all = {0, 200, 0, 1};
  args.q_spans = &half;
  args.kv_spans = &all;
  args.dq_row_offset = -100;  // dq, lse and delta begin with the half
  args.dq.data = c.dq_data.data();
  args.lse.data = c.lse_data.data() + 100 * 2;
  args.delta.data = c.delta_data.data() + 100 * 2;
  args.dq.rows = args.lse.rows = args.delta.rows = 100;
  std::fill(c.dv_data.begin(), c.dv_data.end(), 3.0f);
  device.Check(api_->attend_backward(device.stream(), &args));
  for (int64_t i = 0; i < 100 * 2 * 16; ++i) {
    ASSERT_NEAR(c.dq_data[i], whole.dq_data[100 * 2 * 16 + i], 1e-3) << i;
  }
  // Keys of the second half are seen by its queries alone.
  for (int64_t i = 100 * 16; i < 200 * 16; ++i) {
    ASSERT_NEAR(c.dv_data[i] - 3.0f, whole.dv_data[i], 2e-3) << i;
  }
}

TEST_F(CudnnProviderTest, RowsWithoutAKeyGiveNoGradient) {
  TestDevice device(api_, 1, "cudnn");
  AttentionCase c({1, 80, 100, 1, 1, 16, ANNULUS_BF16, Full()});
  device.Attend(c);
  c.lse_data[5] = -std::numeric_limits<float>::infinity();
  const annulusTensor d_o = c.d_o();
  AttentionCase::FillRow(d_o, 0, 6, 0, 0.0f);
  device.AttendBackward(c);
  EXPECT_EQ(FakeCudnn().executed.size(), 2u);
  for (int64_t i = 0; i < 80 * 16; ++i) {
    ASSERT_FALSE(std::isnan(c.dq_data[i]));
    if (i / 16 == 5 || i / 16 == 6) {
      ASSERT_EQ(c.dq_data[i], 0.0f);
    }
  }
}

TEST_F(CudnnProviderTest, TinyAndHugeGradientsKeepTheirDelta) {
  TestDevice device(api_, 1, "cudnn");
  for (const float scale : {1e-25f, 1e18f}) {
    AttentionCase c({1, 64, 64, 1, 1, 16, ANNULUS_BF16, Full()});
    std::vector<float> values(64 * 16);
    LoadAsFloat(c.do_data.data(), ANNULUS_BF16, 64 * 16, values.data());
    for (float& value : values) value *= scale;
    StoreFromFloat(values.data(), 64 * 16, ANNULUS_BF16, c.do_data.data());
    RunBoth(device, c);
  }
}

TEST_F(CudnnProviderTest, WhatTheTableLeavesToPortableKernels) {
  Fake().run_kernels = false;
  TestDevice device(api_, 1, "cudnn");
  const Shape shapes[] = {{1, 100, 100, 1, 1, 64, ANNULUS_F32},
                          {1, 100, 100, 1, 1, 136, ANNULUS_BF16},
                          {1, 63, 100, 1, 1, 64, ANNULUS_BF16},
                          {1, 100, 100, 1, 1, 64, ANNULUS_BF16, Causal(0, 10)}};
  for (const Shape& shape : shapes) {
    AttentionCase c(shape);
    const annulusAttendArgs args = c.Args();
    const annulusAttendBackwardArgs backward = c.BackwardArgs();
    device.Check(api_->attend(device.stream(), &args));
    device.Check(api_->attend_backward(device.stream(), &backward));
  }
  AttentionCase c({1, 100, 100, 1, 1, 64, ANNULUS_BF16});
  annulusAttendArgs odd = c.Args();
  odd.k.data = static_cast<char*>(odd.k.data) + 2;  // not 16-byte aligned
  odd.k.rows = odd.v.rows = 99;
  const annulusSpan keys = {0, 99, 0, 1};
  odd.kv_spans = &keys;
  device.Check(api_->attend(device.stream(), &odd));
  EXPECT_TRUE(FakeCudnn().built.empty());
  EXPECT_EQ(Fake().launches.size(), 4u * 3 + 1);
}

TEST_F(CudnnProviderTest, TheDeterministicBackwardIsPortable) {
  Fake().run_kernels = false;
  annulusComputeOptions options = Options();
  options.deterministic = 1;
  annulusDevice* device = nullptr;
  annulusStream* stream = nullptr;
  ASSERT_EQ(api_->open(&options, &device), ANNULUS_COMPUTE_OK);
  ASSERT_EQ(api_->stream_create(device, &stream), ANNULUS_COMPUTE_OK);
  AttentionCase c({1, 100, 100, 1, 1, 64, ANNULUS_BF16});
  const annulusAttendArgs args = c.Args();
  const annulusAttendBackwardArgs backward = c.BackwardArgs();
  EXPECT_EQ(api_->attend_backward(stream, &backward), ANNULUS_COMPUTE_OK);
  EXPECT_TRUE(FakeCudnn().built.empty());
  EXPECT_EQ(api_->attend(stream, &args), ANNULUS_COMPUTE_OK);
  EXPECT_EQ(FakeCudnn().built.size(), 1u);
  api_->stream_destroy(stream);
  api_->close(device);
}

TEST_F(CudnnProviderTest, PlansAndMemoryAreMadeOnceAShape) {
  Fake().run_kernels = false;
  TestDevice device(api_, 1, "cudnn");
  AttentionCase c({1, 100, 100, 1, 1, 64, ANNULUS_BF16});
  device.Attend(c);
  const size_t allocations = Fake().memory.size();
  Fake().failing = {"Allocate"};
  for (int i = 0; i < 3; ++i) device.Attend(c);
  EXPECT_EQ(FakeCudnn().built.size(), 1u);
  EXPECT_EQ(FakeCudnn().executed.size(), 4u);
  EXPECT_EQ(Fake().memory.size(), allocations);
  Fake().failing.clear();
  FakeCudnn().workspace_bytes = cuda::Scratch::kBytesMax;
  const annulusAttendArgs args = c.Args();
  EXPECT_EQ(api_->attend(device.stream(), &args), ANNULUS_COMPUTE_OUT_OF_MEMORY);
  EXPECT_THAT(api_->last_error(), HasSubstr("at most 4294967296"));
}

TEST_F(CudnnProviderTest, TheCacheForgetsWhatWasNotUsedForLongest) {
  std::unique_ptr<cuda::CudnnApi> library = std::move(cuda::OpenCudnn()).value();
  cuda::PlanCache cache(library.get());
  cuda::AttentionShape shape = {};
  auto get = [&](int64_t rows) {
    shape.q_rows = rows;
    ASSERT_TRUE(cache.Get(shape).ok());
  };
  const int64_t max = cuda::PlanCache::kPlansMax;
  for (int64_t rows = 0; rows < max; ++rows) get(rows);
  get(0);
  get(max);  // in the place of 1
  EXPECT_EQ(FakeCudnn().plans, max);
  const size_t built = FakeCudnn().built.size();
  get(0);
  get(2);
  EXPECT_EQ(FakeCudnn().built.size(), built);
  get(1);
  EXPECT_EQ(FakeCudnn().built.size(), built + 1);
  FakeCudnn().build = absl::InternalError("no");
  shape.q_rows = -1;
  EXPECT_FALSE(cache.Get(shape).ok());
  EXPECT_EQ(FakeCudnn().plans, max);
}

TEST_F(CudnnProviderTest, FailuresAreTold) {
  Fake().run_kernels = false;
  const annulusComputeOptions options = Options();
  annulusDevice* none = nullptr;
  FakeCudnn().open = absl::InvalidArgumentError("provider cudnn: no such library");
  EXPECT_EQ(api_->open(&options, &none), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("no such library"));
  FakeCudnn().open = absl::OkStatus();
  annulusComputeOptions sparing = options;
  sparing.spare_units = 2;
  EXPECT_EQ(api_->open(&sparing, &none), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("spare_units 2, expected 0"));
  Fake().failing = {"MakeCurrent"};
  EXPECT_EQ(api_->open(&options, &none), ANNULUS_COMPUTE_DEVICE_ERROR);
  EXPECT_EQ(none, nullptr);
  Fake().failing.clear();

  TestDevice device(api_, 1, "cudnn");
  annulusDeviceInfo info = {};
  info.struct_size = sizeof(info);
  device.Check(api_->device_info(device.device(), &info));
  EXPECT_THAT(info.description, HasSubstr(", cuDNN 9.99.0"));
  AttentionCase c({1, 100, 100, 1, 1, 64, ANNULUS_BF16});
  const annulusAttendArgs args = c.Args();
  const annulusAttendBackwardArgs backward = c.BackwardArgs();
  auto both = [&](annulusComputeStatus want, const char* words) {
    EXPECT_EQ(api_->attend(device.stream(), &args), want);
    EXPECT_THAT(api_->last_error(), HasSubstr(words));
    EXPECT_EQ(api_->attend_backward(device.stream(), &backward), want);
    EXPECT_THAT(api_->last_error(), HasSubstr(words));
  };
  FakeCudnn().build = absl::InvalidArgumentError("no kernel for this");
  both(ANNULUS_COMPUTE_INVALID_ARGUMENT, "no kernel for this");
  FakeCudnn().build = absl::OkStatus();
  Fake().failing = {"Allocate"};
  Fake().failure = absl::ResourceExhaustedError("no memory left");
  both(ANNULUS_COMPUTE_OUT_OF_MEMORY, "no memory left");
  Fake().failing = {"Launch"};
  Fake().failure = absl::InternalError("the device is gone");
  both(ANNULUS_COMPUTE_DEVICE_ERROR, "the device is gone");
  Fake().failing.clear();
  FakeCudnn().execute = absl::InternalError("cuDNN broke");
  both(ANNULUS_COMPUTE_DEVICE_ERROR, "cuDNN broke");
  EXPECT_EQ(Fake().launches.size(), 1u);  // no portable kernel in the place of cuDNN's
}

}  // namespace
}  // namespace annulus::kernels
