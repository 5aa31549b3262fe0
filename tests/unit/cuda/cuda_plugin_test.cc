// SPDX-License-Identifier: Apache-2.0
// The C ABI of the CUDA device over a driver that fails where it is told to.
#include "kernels/cuda/cuda_plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <time.h>

#include <cstring>
#include <functional>
#include <limits>

#include "tests/unit/cuda/fake_driver.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

using cuda::Fake;
using cuda::KernelId;
using testing::HasSubstr;

int64_t NowNs() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class CudaPluginTest : public testing::Test {
 protected:
  void SetUp() override {
    Fake() = cuda::FakeCuda();
    Fake().run_kernels = false;
  }
  void TearDown() override {
    EXPECT_EQ(Fake().memory.size() + Fake().streams.size() + Fake().events.size(), 0u);
    EXPECT_EQ(Fake().drivers, 0);
  }

  const annulusComputeV1* api_ = CudaPlugin();
};

TEST_F(CudaPluginTest, NoEntryIsMissing) {
  void* entries[sizeof(annulusComputeV1) / sizeof(void*)];
  std::memcpy(entries, api_, sizeof(annulusComputeV1));
  for (size_t i = offsetof(annulusComputeV1, open) / sizeof(void*);
       i < sizeof(annulusComputeV1) / sizeof(void*); ++i) {
    if (i == offsetof(annulusComputeV1, run_ceiling) / sizeof(void*)) continue;
    EXPECT_NE(entries[i], nullptr) << i;
  }
  EXPECT_STREQ(api_->name, "cuda");
  EXPECT_EQ(api_->caps, uint64_t{ANNULUS_COMPUTE_CAP_ASYNC | ANNULUS_COMPUTE_CAP_BACKWARD |
                                 ANNULUS_COMPUTE_CAP_SLIDING_WINDOW});
}

TEST_F(CudaPluginTest, OpenTellsWhatIsWrong) {
  annulusDevice* device = nullptr;
  annulusComputeOptions options = {sizeof(options), 0, 1};
  auto open = [&] { return api_->open(&options, &device); };
  options.struct_size = 8;
  EXPECT_EQ(open(), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("options: struct_size 8"));
  options = {sizeof(options), 3, 1};
  EXPECT_EQ(open(), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("device_ordinal 3, this machine has 1 CUDA devices"));
  options.device_ordinal = 0;
  Fake().properties.capability_major = 7;
  Fake().properties.capability_minor = 5;
  EXPECT_EQ(open(), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("compute capability 7.5, expected 8.0 or later"));
  Fake().properties.capability_major = 8;
  Fake().properties.shared_bytes_block = 48 << 10;
  EXPECT_EQ(open(), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("49152 bytes of shared memory a block"));
  Fake().failing = {"Open"};
  EXPECT_EQ(open(), ANNULUS_COMPUTE_DEVICE_ERROR);
  EXPECT_THAT(api_->last_error(), HasSubstr("the device is gone"));
  EXPECT_EQ(api_->open(nullptr, &device), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(device, nullptr);
}

TEST_F(CudaPluginTest, DeviceInfo) {
  TestDevice device(api_);
  annulusDeviceInfo info = {};
  info.struct_size = sizeof(info);
  device.Check(api_->device_info(device.device(), &info));
  EXPECT_STREQ(info.description, "cuda: Fake, compute capability 9.0");
  EXPECT_EQ(info.memory_bytes, int64_t{80} << 30);
  EXPECT_EQ(info.compute_units, 132);
  EXPECT_EQ(info.host_memory, 0);
  EXPECT_STREQ(info.bus_id, "0000:3b:00.0");
}

TEST_F(CudaPluginTest, FailuresOfTheDeviceAreTold) {
  TestDevice device(api_);
  annulusEvent* event = nullptr;
  device.Check(api_->event_create(device.device(), &event));
  device.Check(api_->event_record(event, device.stream()));
  AttentionCase c({1, 10, 20, 2, 1, 16});
  const annulusAttendArgs args = c.Args();
  const annulusAttendBackwardArgs backward = c.BackwardArgs();
  const annulusTensor o = c.o();
  const annulusTensor d_o = c.d_o();
  const annulusTensor q = c.q();
  const annulusRowStat lse = c.lse();
  const annulusRowStat delta = c.delta();
  void* memory = nullptr;
  annulusStream* stream = nullptr;
  annulusEvent* other = nullptr;
  const int64_t late = std::numeric_limits<int64_t>::max();
  const std::pair<const char*, std::function<annulusComputeStatus()>> calls[] = {
      {"Allocate", [&] { return api_->alloc(device.device(), 10, &memory); }},
      {"CreateStream", [&] { return api_->stream_create(device.device(), &stream); }},
      {"CreateEvent", [&] { return api_->event_create(device.device(), &other); }},
      {"Record", [&] { return api_->event_record(event, device.stream()); }},
      {"Reached", [&] { return api_->event_synchronize(event, late, nullptr); }},
      {"Zero", [&] { return api_->fill_zero(device.stream(), c.o_data.data(), 1); }},
      {"Launch", [&] { return api_->attend(device.stream(), &args); }},
      {"Launch", [&] { return api_->attend_backward(device.stream(), &backward); }},
      {"Launch", [&] { return api_->reset(device.stream(), &o, &lse); }},
      {"Launch", [&] { return api_->backward_prepare(device.stream(), &d_o, &o, &delta); }},
      {"Launch", [&] { return api_->merge(device.stream(), &o, &lse, &o, &lse); }},
      {"Launch", [&] { return api_->finish(device.stream(), &o, &q); }},
      {"Launch",
       [&] {
         return api_->accumulate(device.stream(), c.o_data.data(), c.o_data.data(), ANNULUS_F32, 1);
       }},
  };
  for (const auto& [method, call] : calls) {
    Fake().failing = {method};
    Fake().failure = absl::InternalError("the device is gone");
    EXPECT_EQ(call(), ANNULUS_COMPUTE_DEVICE_ERROR) << method;
    EXPECT_THAT(api_->last_error(), HasSubstr("the device is gone"));
    Fake().failure = absl::ResourceExhaustedError("no memory left");
    EXPECT_EQ(call(), ANNULUS_COMPUTE_OUT_OF_MEMORY) << method;
    EXPECT_THAT(api_->last_error(), HasSubstr("no memory left"));
  }
  EXPECT_EQ(Fake().launches.size(), 0u);
  Fake().failing.clear();
  api_->event_destroy(event);
}

TEST_F(CudaPluginTest, EventsWaitUntilTheDeadline) {
  TestDevice device(api_);
  annulusEvent* event = nullptr;
  device.Check(api_->event_create(device.device(), &event));
  EXPECT_EQ(api_->event_synchronize(event, 0, nullptr), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  device.Check(api_->event_record(event, device.stream()));
  Fake().polls_until_reached = 5000;  // past the spinning
  int64_t time_ns = 0;
  const int64_t before = NowNs();
  device.Check(api_->event_synchronize(event, before + 60'000'000'000, &time_ns));
  EXPECT_GE(time_ns, before);
  EXPECT_LE(time_ns, NowNs());

  Fake().polls_until_reached = std::numeric_limits<int>::max();
  const int64_t deadline = NowNs() + 5'000'000;
  EXPECT_EQ(api_->event_synchronize(event, deadline, nullptr), ANNULUS_COMPUTE_DEADLINE);
  EXPECT_THAT(api_->last_error(), HasSubstr("deadline"));
  EXPECT_GE(NowNs(), deadline);
  api_->event_destroy(event);
}

TEST_F(CudaPluginTest, TheSmallestKernelThatHoldsTheHeadSizeIsLaunched) {
  Fake().properties.capability_major = 8;
  TestDevice device(api_);
  struct Choice {
    annulusDtype dtype;
    int head_dim;
    KernelId kernel;
  };
  const Choice choices[] = {{ANNULUS_F32, 16, KernelId::kAttend64},
                            {ANNULUS_F32, 64, KernelId::kAttend64},
                            {ANNULUS_F32, 72, KernelId::kAttend128},
                            {ANNULUS_F32, 136, KernelId::kAttend256},
                            {ANNULUS_BF16, 64, KernelId::kAttendMatrixBf16_64},
                            {ANNULUS_BF16, 128, KernelId::kAttendMatrixBf16_128},
                            {ANNULUS_BF16, 136, KernelId::kAttend256},
                            {ANNULUS_F16, 40, KernelId::kAttendMatrixF16_64},
                            {ANNULUS_F16, 120, KernelId::kAttendMatrixF16_128}};
  for (const auto& [dtype, head_dim, kernel] : choices) {
    AttentionCase c({2, 130, 20, 4, 2, head_dim, dtype});
    Fake().launches.clear();
    device.Attend(c);
    ASSERT_EQ(Fake().launches.size(), 1u);
    EXPECT_EQ(Fake().launches[0].kernel, kernel) << head_dim;
    const int rows = cuda::ShapeOf(kernel).tile_rows;
    EXPECT_EQ(Fake().launches[0].blocks, (130 + rows - 1) / rows * 4 * 2);
  }
}

// A device with a provider; the status of opening it, and of one call of a shape there.
struct Choice {
  annulusComputeStatus opened;
  annulusComputeStatus attended;
};
Choice AttendWith(const annulusComputeV1* api, const char* provider, const annulusAttendArgs& args,
                  int spare_units = 0) {
  annulusComputeOptions options = {sizeof(options), 0, 1};
  options.provider = provider;
  options.spare_units = spare_units;
  annulusDevice* device = nullptr;
  const annulusComputeStatus opened = api->open(&options, &device);
  if (opened != ANNULUS_COMPUTE_OK) return {opened, opened};
  annulusStream* stream = nullptr;
  EXPECT_EQ(api->stream_create(device, &stream), ANNULUS_COMPUTE_OK);
  const annulusComputeStatus attended = api->attend(stream, &args);
  api->stream_destroy(stream);
  api->close(device);
  return {opened, attended};
}

TEST_F(CudaPluginTest, TheProviderDecidesWhichKernelsRun) {
  AttentionCase suits({2, 130, 20, 4, 2, 72, ANNULUS_BF16});
  const annulusAttendArgs args = suits.Args();
  for (const char* provider : {static_cast<const char*>(nullptr), "auto", "sm90"}) {
    Fake().launches.clear();
    EXPECT_EQ(AttendWith(api_, provider, args).attended, ANNULUS_COMPUTE_OK);
    EXPECT_EQ(Fake().launches.at(0).kernel, KernelId::kAttendHopperBf16_128);
  }
  Fake().launches.clear();
  EXPECT_EQ(AttendWith(api_, "portable", args).attended, ANNULUS_COMPUTE_OK);
  EXPECT_EQ(Fake().launches.at(0).kernel, KernelId::kAttendMatrixBf16_128);
  EXPECT_EQ(AttendWith(api_, "fastest", args).opened, ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(),
              HasSubstr("provider \"fastest\", expected auto, sm90, portable or cudnn"));
  for (const auto& [major, minor] : {std::pair(8, 0), std::pair(10, 0), std::pair(9, 1)}) {
    Fake().properties.capability_major = major;
    Fake().properties.capability_minor = minor;
    EXPECT_EQ(AttendWith(api_, "sm90", args).opened, ANNULUS_COMPUTE_INVALID_ARGUMENT);
    EXPECT_THAT(api_->last_error(),
                HasSubstr("provider sm90 needs compute capability 9.0, Fake has"));
    Fake().launches.clear();
    EXPECT_EQ(AttendWith(api_, "auto", args).attended, ANNULUS_COMPUTE_OK);
    EXPECT_EQ(Fake().launches.at(0).kernel, KernelId::kAttendMatrixBf16_128);
  }
}

// What the kernels of 9.0 do not take goes to the portable ones, or is refused where they were
// asked for.
TEST_F(CudaPluginTest, WhatSm90DoesNotTake) {
  AttentionCase c({1, 64, 64, 2, 1, 64, ANNULUS_BF16});
  AttentionCase floats({1, 64, 64, 2, 1, 64, ANNULUS_F32});
  AttentionCase wide({1, 64, 64, 2, 1, 136, ANNULUS_BF16});
  std::vector<annulusAttendArgs> calls(7, c.Args());
  const char* reasons[] = {"q, k, v are f32",     "head_dim 136",      "softmax_scale -1",
                           "start on 16 bytes",   "start on 16 bytes", "o does not start on 8",
                           "31 bits do not count"};
  calls[0] = floats.Args();
  calls[1] = wide.Args();
  calls[2].softmax_scale = -1.0f;
  calls[3].k.data = static_cast<char*>(calls[3].k.data) + 2;
  calls[4].v.row_stride += 4;
  calls[5].o.row_stride += 1;
  const annulusSpan far = {0, 64, 0, int64_t{1} << 30};
  calls[6].kv_spans = &far;
  for (size_t i = 0; i < calls.size(); ++i) {
    Fake().launches.clear();
    EXPECT_EQ(AttendWith(api_, "sm90", calls[i]).attended, ANNULUS_COMPUTE_INVALID_ARGUMENT);
    EXPECT_THAT(api_->last_error(), HasSubstr(reasons[i]));
    EXPECT_EQ(Fake().launches.size(), 0u);
    EXPECT_EQ(AttendWith(api_, "auto", calls[i]).attended, ANNULUS_COMPUTE_OK) << reasons[i];
    EXPECT_FALSE(cuda::ShapeOf(Fake().launches.at(0).kernel).hopper) << reasons[i];
  }
  Fake().failing = {"EncodeMap"};
  EXPECT_EQ(AttendWith(api_, "auto", c.Args()).attended, ANNULUS_COMPUTE_DEVICE_ERROR);
}

TEST_F(CudaPluginTest, SpareUnitsAreLeftToTransfers) {
  AttentionCase c({2, 2000, 20, 8, 2, 64, ANNULUS_BF16});
  const annulusAttendArgs args = c.Args();
  for (const int spare : {0, 6, 131}) {
    Fake().launches.clear();
    EXPECT_EQ(AttendWith(api_, "auto", args, spare).attended, ANNULUS_COMPUTE_OK);
    EXPECT_EQ(Fake().launches.at(0).blocks, 132 - spare);
  }
  AttentionCase small({1, 200, 20, 2, 2, 64, ANNULUS_BF16});
  Fake().launches.clear();
  EXPECT_EQ(AttendWith(api_, "auto", small.Args()).attended, ANNULUS_COMPUTE_OK);
  EXPECT_EQ(Fake().launches.at(0).blocks, 4);
  for (const int spare : {-1, 132}) {
    EXPECT_EQ(AttendWith(api_, "auto", args, spare).opened, ANNULUS_COMPUTE_INVALID_ARGUMENT);
    EXPECT_THAT(api_->last_error(), HasSubstr("expected 0 to 131"));
  }
  // The portable kernels leave none: what they would have to run is refused.
  EXPECT_EQ(AttendWith(api_, "portable", args, 1).opened, ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("spare_units 1, expected 0"));
  AttentionCase floats({1, 64, 64, 2, 1, 64, ANNULUS_F32});
  Fake().launches.clear();
  EXPECT_EQ(AttendWith(api_, "auto", floats.Args(), 1).attended, ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("leave no spare_units"));
  EXPECT_TRUE(Fake().launches.empty());
}

TEST_F(CudaPluginTest, NothingToDoLaunchesNothing) {
  TestDevice device(api_);
  AttentionCase c({1, 10, 10, 1, 1, 16});
  c.kv_spans.clear();
  device.Attend(c);
  c.kv_spans = {{0, 0, 0, 1}};
  device.Attend(c);
  AttentionCase empty({1, 0, 10, 1, 1, 16});
  const annulusTensor o = empty.o();
  const annulusRowStat lse = empty.lse();
  device.Check(api_->reset(device.stream(), &o, &lse));
  device.Check(api_->accumulate(device.stream(), nullptr, nullptr, ANNULUS_F32, 0));
  device.Check(api_->fill_zero(device.stream(), nullptr, 0));
  EXPECT_EQ(Fake().launches.size(), 0u);
}

TEST_F(CudaPluginTest, BadArgumentsAreRefusedBeforeAnythingRuns) {
  TestDevice device(api_);
  AttentionCase c({1, 10, 20, 2, 1, 16});
  annulusAttendArgs args = c.Args();
  args.q.head_dim = args.k.head_dim = args.v.head_dim = 12;
  EXPECT_EQ(api_->attend(device.stream(), &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("multiple of 8"));
  EXPECT_EQ(api_->supports(device.device(), ANNULUS_F32, 264, 1, 1),
            ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(api_->attend(nullptr, &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(api_->attend(device.stream(), nullptr), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(Fake().launches.size(), 0u);
}

}  // namespace
}  // namespace annulus::kernels
