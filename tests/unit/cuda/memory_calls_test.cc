// SPDX-License-Identifier: Apache-2.0
// Copies, pinned host memory, and memory of other processes, over the driver of the tests.
#include "kernels/cuda/memory_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_plugin.h"
#include "tests/unit/cuda/fake_driver.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

using cuda::Fake;
using testing::HasSubstr;

class MemoryCallsTest : public testing::Test {
 protected:
  void SetUp() override { Fake() = cuda::FakeCuda(); }

  const annulusComputeV1* api_ = CudaPlugin();
};

TEST_F(MemoryCallsTest, RowsAreCopiedFromPitchToPitch) {
  TestDevice device(api_);
  std::vector<uint8_t> from(64), to(64, 0xff);
  std::iota(from.begin(), from.end(), uint8_t{0});
  annulusCopyArgs args = {sizeof(args), to.data(), from.data(), 4, 3, 5, 16};
  device.Check(api_->copy(device.stream(), &args));
  for (size_t i = 0; i < to.size(); ++i) {
    const bool copied = i < 15 && i % 5 < 4;
    EXPECT_EQ(to[i], copied ? i / 5 * 16 + i % 5 : 0xff) << i;
  }
  args = {sizeof(args), nullptr, nullptr, 0, 3, 0, 0};
  device.Check(api_->copy(device.stream(), &args));
}

TEST_F(MemoryCallsTest, CopiesThatCannotBeAreRefused) {
  TestDevice device(api_);
  std::vector<uint8_t> bytes(64);
  annulusCopyArgs args = {sizeof(args), bytes.data(), bytes.data(), 8, 2, 7, 8};
  EXPECT_EQ(api_->copy(device.stream(), &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("rows of 8 bytes: to_pitch 7"));
  args.rows = 1;
  device.Check(api_->copy(device.stream(), &args));
  args.from = nullptr;
  EXPECT_EQ(api_->copy(device.stream(), &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_EQ(api_->copy(nullptr, &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  args.struct_size = 8;
  EXPECT_EQ(api_->copy(device.stream(), &args), ANNULUS_COMPUTE_INVALID_ARGUMENT);
}

TEST_F(MemoryCallsTest, MemoryGoesFromOneProcessToAnother) {
  TestDevice exporter(api_);
  TestDevice importer(api_);
  void* memory = nullptr;
  exporter.Check(api_->alloc(exporter.device(), 256, &memory));
  annulusMemoryHandle handle = {};
  handle.struct_size = sizeof(handle);
  exporter.Check(api_->export_memory(exporter.device(), memory, &handle));
  EXPECT_EQ(handle.struct_size, sizeof(handle));
  handle.bytes = 256;
  handle.offset = 64;
  void* seen = nullptr;
  importer.Check(api_->import_memory(importer.device(), &handle, &seen));
  EXPECT_EQ(seen, static_cast<uint8_t*>(memory) + 64);
  handle.offset = 256;
  EXPECT_EQ(api_->import_memory(importer.device(), &handle, &seen),
            ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_THAT(api_->last_error(), HasSubstr("offset 256 in an allocation of 256 bytes"));
  importer.Check(api_->release_memory(importer.device(), seen));
  EXPECT_EQ(api_->release_memory(importer.device(), seen), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_TRUE(Fake().imported.empty());
  api_->free(exporter.device(), memory);
  handle.struct_size = 16;
  EXPECT_EQ(api_->export_memory(exporter.device(), memory, &handle),
            ANNULUS_COMPUTE_INVALID_ARGUMENT);
}

TEST_F(MemoryCallsTest, FailuresOfTheDeviceAreTold) {
  TestDevice device(api_);
  std::vector<uint8_t> bytes(64);
  const annulusCopyArgs args = {sizeof(args), bytes.data(), bytes.data() + 32, 8, 1, 8, 8};
  annulusMemoryHandle handle = {};
  handle.struct_size = sizeof(handle);
  handle.bytes = 1;
  void* memory = bytes.data();
  const std::pair<const char*, std::function<annulusComputeStatus()>> calls[] = {
      {"Copy", [&] { return api_->copy(device.stream(), &args); }},
      {"RegisterHost", [&] { return api_->register_host(device.device(), memory, 64); }},
      {"UnregisterHost", [&] { return api_->unregister_host(device.device(), memory); }},
      {"Export", [&] { return api_->export_memory(device.device(), memory, &handle); }},
      {"Import", [&] { return api_->import_memory(device.device(), &handle, &memory); }},
      {"Release", [&] { return api_->release_memory(device.device(), memory); }},
  };
  for (const auto& [method, call] : calls) {
    Fake().failing = {method};
    EXPECT_EQ(call(), ANNULUS_COMPUTE_DEVICE_ERROR) << method;
    EXPECT_THAT(api_->last_error(), HasSubstr("the device is gone"));
  }
}

TEST_F(MemoryCallsTest, HostMemoryIsRegisteredOnce) {
  TestDevice device(api_);
  std::vector<uint8_t> bytes(64);
  device.Check(api_->register_host(device.device(), bytes.data(), bytes.size()));
  EXPECT_EQ(api_->register_host(device.device(), bytes.data(), bytes.size()),
            ANNULUS_COMPUTE_INVALID_ARGUMENT);
  device.Check(api_->unregister_host(device.device(), bytes.data()));
  EXPECT_EQ(api_->unregister_host(device.device(), nullptr), ANNULUS_COMPUTE_INVALID_ARGUMENT);
  EXPECT_TRUE(Fake().registered.empty());
}

}  // namespace
}  // namespace annulus::kernels
