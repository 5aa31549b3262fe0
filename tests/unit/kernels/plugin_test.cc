// SPDX-License-Identifier: Apache-2.0
// The C ABI of the CPU device: the library as a worker loads it, handles, refusals, row operations.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

#include "kernels/cpu/cpu_plugin.h"
#include "kernels/tensor_view.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(CpuPlugin, LoadsAsASharedLibrary) {
  void* library = dlopen(ANNULUS_CPU_PLUGIN_PATH, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto* api = static_cast<const annulusComputeV1*>(dlsym(library, ANNULUS_COMPUTE_V1_SYMBOL));
  ASSERT_NE(api, nullptr) << dlerror();
  EXPECT_EQ(api->struct_size, sizeof(annulusComputeV1));
  EXPECT_STREQ(api->name, "cpu");
  const annulusComputeOptions options = {sizeof(options), 0, 2};
  annulusDevice* device = nullptr;
  ASSERT_EQ(api->open(&options, &device), ANNULUS_COMPUTE_OK) << api->last_error();
  annulusDeviceInfo info = {};
  info.struct_size = sizeof(info);
  ASSERT_EQ(api->device_info(device, &info), ANNULUS_COMPUTE_OK);
  EXPECT_THAT(info.description, HasSubstr("2 threads"));
  EXPECT_EQ(info.compute_units, 2);
  EXPECT_EQ(info.host_memory, 1);
  api->close(device);
  dlclose(library);
}

TEST(CpuPlugin, NoEntryIsMissing) {
  const annulusComputeV1* api = CpuPlugin();
  void* entries[sizeof(annulusComputeV1) / sizeof(void*)];
  std::memcpy(entries, api, sizeof(annulusComputeV1));
  for (size_t i = offsetof(annulusComputeV1, open) / sizeof(void*);
       i < offsetof(annulusComputeV1, copy) / sizeof(void*); ++i) {
    EXPECT_NE(entries[i], nullptr) << i;
  }
}

TEST(CpuPlugin, OpenRefusesBadOptions) {
  const annulusComputeV1* api = CpuPlugin();
  annulusDevice* device = nullptr;
  for (const annulusComputeOptions& options : {annulusComputeOptions{0, 0, 1},
                                               {sizeof(annulusComputeOptions), 1, 1},
                                               {sizeof(annulusComputeOptions), 0, 0},
                                               {sizeof(annulusComputeOptions), 0, 1 << 20}}) {
    EXPECT_EQ(api->open(&options, &device), ANNULUS_COMPUTE_INVALID_ARGUMENT);
    EXPECT_STRNE(api->last_error(), "");
  }
  EXPECT_EQ(api->open(nullptr, &device), ANNULUS_COMPUTE_INVALID_ARGUMENT);
}

TEST(CpuPlugin, BindsThreadsToProcessors) {
  const annulusComputeV1* api = CpuPlugin();
  const int32_t here = sched_getcpu();
  annulusDevice* device = nullptr;
  annulusComputeOptions options = {sizeof(options), 0, 2, &here, 1};
  EXPECT_EQ(api->open(&options, &device), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api->last_error(), HasSubstr("1 for 2 threads"));
  const int32_t nowhere[] = {here, CPU_SETSIZE};
  options = {sizeof(options), 0, 2, nowhere, 2};
  EXPECT_EQ(api->open(&options, &device), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api->last_error(), HasSubstr("may not run on processor"));

  const int32_t both[] = {here, here};
  options.cpus = both;
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  ASSERT_EQ(api->open(&options, &device), ANNULUS_COMPUTE_OK) << api->last_error();
  annulusStream* stream = nullptr;
  ASSERT_EQ(api->stream_create(device, &stream), ANNULUS_COMPUTE_OK);
  AttentionCase c({1, 200, 200, 2, 2, 16});
  const annulusAttendArgs args = c.Args();
  EXPECT_EQ(api->attend(stream, &args), ANNULUS_COMPUTE_OK);
  ExpectForwardMatches(c);
  api->stream_destroy(stream);
  api->close(device);
  cpu_set_t after;
  ASSERT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after)) << "the caller runs where it may run";
}

TEST(CpuPlugin, Supports) {
  CpuDevice cpu;
  auto supports = [&](annulusDtype dtype, int64_t head_dim, int64_t q_heads, int64_t kv_heads) {
    return cpu.api().supports(cpu.device(), dtype, head_dim, q_heads, kv_heads);
  };
  EXPECT_EQ(supports(ANNULUS_F16, 128, 8, 2), ANNULUS_COMPUTE_OK);
  EXPECT_EQ(supports(ANNULUS_BF16, 24, 1, 1), ANNULUS_COMPUTE_OK);
  EXPECT_EQ(supports(ANNULUS_F32, 20, 1, 1), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(cpu.api().last_error(), HasSubstr("head size 20, expected a multiple of 8"));
  EXPECT_EQ(supports(ANNULUS_F32, 8, 1, 1), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(supports(ANNULUS_F32, 264, 1, 1), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(supports(ANNULUS_F32, 64, 6, 4), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(supports(ANNULUS_F32, 64, 0, 0), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(supports(static_cast<annulusDtype>(9), 64, 1, 1), ANNULUS_COMPUTE_INVALID_ARGUMENT);
}

TEST(CpuPlugin, LastErrorBelongsToTheThread) {
  CpuDevice cpu;
  cpu.api().supports(cpu.device(), ANNULUS_F32, 20, 1, 1);
  std::string elsewhere = "unset";
  std::thread([&] { elsewhere = cpu.api().last_error(); }).join();
  EXPECT_EQ(elsewhere, "");
  EXPECT_STRNE(cpu.api().last_error(), "");
}

struct BadCall {
  const char* message;
  std::function<void(annulusAttendArgs&)> spoil;
};

TEST(CpuPlugin, AttendRefusesBadArguments) {
  CpuDevice cpu;
  const BadCall calls[] = {
      {"struct_size", [](auto& a) { a.struct_size = 8; }},
      {"k: null data", [](auto& a) { a.k.data = nullptr; }},
      {"expected dtype f32, got bf16", [](auto& a) { a.o.dtype = ANNULUS_BF16; }},
      {"unknown dtype 7", [](auto& a) { a.v.dtype = static_cast<annulusDtype>(7); }},
      {"multiple of 8", [](auto& a) { a.q.head_dim = a.k.head_dim = a.v.head_dim = 12; }},
      {"above 256", [](auto& a) { a.q.head_dim = 1 << 20; }},
      {"differ in batch or head size", [](auto& a) { a.q.batch = a.o.batch = a.lse.batch = 2; }},
      {"expected a multiple", [](auto& a) { a.k.heads = a.v.heads = 3; }},
      {"k [1, 20, 1, 16] and v [1, 19, 1, 16]", [](auto& a) { a.v.rows = 19; }},
      {"does not cover o", [](auto& a) { a.lse.rows = 9; }},
      {"negative stride", [](auto& a) { a.q.row_stride = -16; }},
      {"q_spans: null", [](auto& a) { a.q_spans = nullptr; }},
      {"q_spans[0]: rows 0 to 10 of 9", [](auto& a) { a.q.rows = 9; }},
      {"kv_spans[0]: rows 0 to 20 of 3", [](auto& a) { a.k.rows = a.v.rows = 3; }},
      {"moved by 1", [](auto& a) { a.o_row_offset = 1; }},
      {"moved by -1", [](auto& a) { a.o_row_offset = -1; }},
      {"unknown kind", [](auto& a) { a.mask.kind = static_cast<annulusMaskKind>(5); }},
      {"window_left -2", [](auto& a) { a.mask.window_left = -2; }},
      {"softmax_scale", [](auto& a) { a.softmax_scale = NAN; }},
  };
  for (const BadCall& call : calls) {
    AttentionCase c({1, 10, 20, 2, 1, 16});
    annulusAttendArgs args = c.Args();
    call.spoil(args);
    EXPECT_EQ(cpu.api().attend(cpu.stream(), &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
    EXPECT_THAT(cpu.api().last_error(), HasSubstr(call.message));
    EXPECT_EQ(c.lse_data[0], -kInfinity);
  }
  EXPECT_EQ(cpu.api().attend(cpu.stream(), nullptr), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  AttentionCase c({1, 10, 20, 2, 1, 16});
  const annulusAttendArgs args = c.Args();
  EXPECT_EQ(cpu.api().attend(nullptr, &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
}

TEST(CpuPlugin, SpansRefuseOverflow) {
  CpuDevice cpu;
  AttentionCase c({1, 10, 20, 2, 1, 16});
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  for (const annulusSpan& span : {annulusSpan{-1, 3, 0, 1},
                                  {0, -1, 0, 1},
                                  {0, 3, 0, 0},
                                  {kHuge, 3, 0, 1},
                                  {0, kHuge, 0, 1},
                                  {0, 3, kHuge, 1},
                                  {0, 3, 0, kHuge},
                                  {9, 2, 0, 1}}) {
    c.q_spans = {span};
    const annulusAttendArgs args = c.Args();
    EXPECT_EQ(cpu.api().attend(cpu.stream(), &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
    EXPECT_THAT(cpu.api().last_error(), HasSubstr("q_spans[0]"));
  }
}

TEST(CpuPlugin, AttendBackwardRefusesBadArguments) {
  CpuDevice cpu;
  const std::pair<const char*, std::function<void(annulusAttendBackwardArgs&)>> calls[] = {
      {"struct_size", [](auto& a) { a.struct_size = 8; }},
      {"dq: expected dtype f32", [](auto& a) { a.dq.dtype = ANNULUS_F16; }},
      {"do: null data", [](auto& a) { a.d_o.data = nullptr; }},
      {"delta", [](auto& a) { a.delta.heads = 1; }},
      {"dk", [](auto& a) { a.dk.heads = 2; }},
      {"kv_spans[0]: rows 0 to 20 moved by 4", [](auto& a) { a.dkv_row_offset = 4; }},
      {"q_spans[0]: rows 0 to 10 moved by -4", [](auto& a) { a.dq_row_offset = -4; }},
  };
  for (const auto& [message, spoil] : calls) {
    AttentionCase c({1, 10, 20, 2, 1, 16});
    annulusAttendBackwardArgs args = c.BackwardArgs();
    spoil(args);
    EXPECT_EQ(cpu.api().attend_backward(cpu.stream(), &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
    EXPECT_THAT(cpu.api().last_error(), HasSubstr(message));
  }
}

TEST(CpuPlugin, EventsStampRisingTimes) {
  CpuDevice cpu;
  annulusEvent* events[2];
  int64_t times[2] = {};
  for (annulusEvent*& event : events) cpu.Check(cpu.api().event_create(cpu.device(), &event));
  EXPECT_EQ(cpu.api().event_synchronize(events[0], 0, &times[0]), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  for (int i = 0; i < 2; ++i) {
    cpu.Check(cpu.api().event_record(events[i], cpu.stream()));
    cpu.Check(cpu.api().event_synchronize(events[i], 0, &times[i]));
  }
  EXPECT_GT(times[0], 0);
  EXPECT_LE(times[0], times[1]);
  for (annulusEvent* event : events) cpu.api().event_destroy(event);
}

TEST(CpuPlugin, MemoryIsAligned) {
  CpuDevice cpu;
  for (const size_t bytes : {0, 1, 100, 1 << 20}) {
    void* memory = nullptr;
    cpu.Check(cpu.api().alloc(cpu.device(), bytes, &memory));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
    std::memset(memory, 255, bytes);
    cpu.Check(cpu.api().fill_zero(cpu.stream(), memory, bytes));
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(static_cast<char*>(memory)[i], 0);
    cpu.api().free(cpu.device(), memory);
  }
}

// Sanitizers end the program instead of failing such an allocation.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(CpuPlugin, OutOfMemoryIsAStatus) {
  CpuDevice cpu;
  void* memory = nullptr;
  EXPECT_EQ(cpu.api().alloc(cpu.device(), size_t{1} << 62, &memory), ANNULUS_COMPUTE_OUT_OF_MEMORY);
}
#endif

TEST(CpuPlugin, ResetPrepareAccumulateFinish) {
  CpuDevice cpu;
  AttentionCase c({2, 7, 9, 3, 1, 16, ANNULUS_BF16});
  cpu.Attend(c);
  const annulusTensor o = c.o();
  const annulusTensor d_o = c.d_o();
  const annulusRowStat lse = c.lse();
  const annulusRowStat delta = c.delta();
  cpu.Check(cpu.api().backward_prepare(cpu.stream(), &d_o, &o, &delta));
  std::vector<float> do_values(c.o_data.size());
  LoadAsFloat(c.do_data.data(), ANNULUS_BF16, do_values.size(), do_values.data());
  for (size_t row = 0; row < c.delta_data.size(); ++row) {
    double want = 0.0;
    for (int i = 0; i < 16; ++i) want += do_values[row * 16 + i] * c.o_data[row * 16 + i];
    EXPECT_NEAR(c.delta_data[row], want, 1e-5);
  }
  std::vector<float> sum = c.o_data;
  cpu.Check(cpu.api().accumulate(cpu.stream(), sum.data(), c.do_data.data(), ANNULUS_BF16,
                                 static_cast<int64_t>(sum.size())));
  cpu.Check(cpu.api().accumulate(cpu.stream(), sum.data(), c.o_data.data(), ANNULUS_F32,
                                 static_cast<int64_t>(sum.size())));
  for (size_t i = 0; i < sum.size(); ++i) {
    EXPECT_FLOAT_EQ(sum[i], c.o_data[i] + do_values[i] + c.o_data[i]);
  }
  EXPECT_EQ(cpu.api().accumulate(cpu.stream(), sum.data(), sum.data(), ANNULUS_F16, 1),
            ANNULUS_COMPUTE_INVALID_ARGUMENT);
  const annulusTensor rounded = c.q();
  cpu.Check(cpu.api().finish(cpu.stream(), &o, &rounded));
  for (size_t i = 0; i < c.o_data.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, c.q_data.data() + 2 * i, 2);
    EXPECT_EQ(bits, FloatToBf16(c.o_data[i]));
  }
  cpu.Check(cpu.api().reset(cpu.stream(), &o, &lse));
  for (const float value : c.o_data) EXPECT_EQ(value, 0.0f);
  for (const float value : c.lse_data) EXPECT_EQ(value, -kInfinity);
}

TEST(CpuPlugin, CeilingsTellTheWorkDone) {
  double of_one_thread[2] = {};
  for (const int threads : {1, 2}) {
    CpuDevice cpu(threads);
    for (const annulusCeiling kind :
         {ANNULUS_CEILING_MULTIPLY_ADD_F32, ANNULUS_CEILING_MEMORY_READ}) {
      double first = 0.0;
      double second = 0.0;
      cpu.Check(cpu.api().run_ceiling(cpu.stream(), kind, &first));
      cpu.Check(cpu.api().run_ceiling(cpu.stream(), kind, &second));
      EXPECT_GT(first, 0.0);
      EXPECT_EQ(first, second);
      if (threads == 1) {
        of_one_thread[kind] = first;
      } else {
        EXPECT_EQ(first, 2 * of_one_thread[kind]) << "each thread has a share of its own";
      }
    }
  }
}

TEST(CpuPlugin, RunCeilingRefusesBadArguments) {
  CpuDevice cpu;
  double work = -1.0;
  EXPECT_EQ(cpu.api().run_ceiling(cpu.stream(), static_cast<annulusCeiling>(2), &work),
            ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(cpu.api().last_error(), HasSubstr("unknown kind 2"));
  EXPECT_EQ(cpu.api().run_ceiling(cpu.stream(), ANNULUS_CEILING_MEMORY_READ, nullptr),
            ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(cpu.api().run_ceiling(nullptr, ANNULUS_CEILING_MEMORY_READ, &work),
            ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(work, -1.0);
}

TEST(CpuPlugin, OneDeviceFromTwoThreads) {
  CpuDevice cpu(2);
  AttentionCase a({1, 200, 300, 2, 1, 32});
  AttentionCase b({1, 250, 100, 1, 1, 64}, 2);
  annulusStream* other = nullptr;
  cpu.Check(cpu.api().stream_create(cpu.device(), &other));
  const annulusAttendArgs b_args = b.Args();
  std::thread thread([&] { cpu.Check(cpu.api().attend(other, &b_args)); });
  cpu.Attend(a);
  thread.join();
  cpu.api().stream_destroy(other);
  ExpectForwardMatches(a);
  ExpectForwardMatches(b);
}

}  // namespace
}  // namespace annulus::kernels
