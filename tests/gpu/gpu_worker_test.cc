// SPDX-License-Identifier: Apache-2.0
// Workers on a GPU: annulus-gpu-worker-test. Whole rings on one device against the float64
// reference, blocks passed on through the host's memory, and what a device's memory can do. Skips
// where there is no GPU.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "tests/gpu/gpu_device.h"
#include "tests/unit/worker/run_both.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

class GpuWorker : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!gpu_.missing().empty()) GTEST_SKIP() << gpu_.missing();
  }

  kernels::GpuDevice gpu_;
};

TEST_P(GpuWorker, RingsMatchTheReference) {
  TestRing ring({.size = GetParam(), .compute = &gpu_.api(), .devices = 1});
  RunEveryKind(ring, 2);
}

INSTANTIATE_TEST_SUITE_P(Sizes, GpuWorker, ::testing::Values(1, 2, 4));

using GpuMemory = GpuWorker;

// In one process a descriptor can be imported where it was exported, an IPC handle cannot.
TEST_P(GpuMemory, AnAllocationIsSeenUnderItsDescriptor) {
  const annulusComputeV1& api = gpu_.api();
  const size_t bytes = static_cast<size_t>(GetParam()) << 20;
  void* memory = nullptr;
  gpu_.Check(api.alloc(gpu_.device(), bytes, &memory));
  annulusMemoryHandle handle = {};
  handle.struct_size = sizeof(handle);
  gpu_.Check(api.export_memory(gpu_.device(), static_cast<uint8_t*>(memory) + 4096, &handle));
  EXPECT_EQ(handle.offset, 4096u);
  EXPECT_GE(handle.bytes, bytes);
  if (handle.kind == ANNULUS_MEMORY_DESCRIPTOR) {
    void* seen = nullptr;
    gpu_.Check(api.import_memory(gpu_.device(), &handle, &seen));
    std::vector<uint8_t> from(1 << 16), to(1 << 16);
    std::iota(from.begin(), from.end(), uint8_t{0});
    annulusCopyArgs copy = {sizeof(copy), seen, from.data(), from.size(), 1, 0, 0};
    gpu_.Check(api.copy(gpu_.stream(), &copy));
    // Every other 256 bytes, back to back.
    copy = {sizeof(copy), to.data(), static_cast<uint8_t*>(memory) + 4096, 256, 128, 256, 512};
    gpu_.Check(api.copy(gpu_.stream(), &copy));
    gpu_.Drain();
    for (size_t row = 0; row < 128; ++row) {
      ASSERT_EQ(std::memcmp(&to[row * 256], &from[row * 512], 256), 0) << row;
    }
    gpu_.Check(api.release_memory(gpu_.device(), seen));
    close(handle.descriptor);
  }
  api.free(gpu_.device(), memory);
}

INSTANTIATE_TEST_SUITE_P(Megabytes, GpuMemory, ::testing::Values(1, 3));

}  // namespace
}  // namespace annulus::worker::testing
