// SPDX-License-Identifier: Apache-2.0
#include "server/worker/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_plugin.h"
#include "server/worker/clock.h"
#include "tests/support/apart/apart_plugin.h"

namespace annulus::worker {
namespace {

using ::testing::HasSubstr;
using testing_support::ApartPlugin;
using testing_support::CountApart;

std::string Refusal(const annulusComputeV1* table, const DeviceOptions& options) {
  const auto device = Device::Open(table, options);
  return std::string(device.ok() ? "" : device.status().message());
}

TEST(DeviceTest, OpensWhatItIsToldTo) {
  const auto device = *Device::Open(ApartPlugin(), {.ordinal = 2});
  EXPECT_FALSE(device->host_memory());
  EXPECT_EQ(device->ordinal(), 2);
  EXPECT_EQ(device->bus_id(), "0000:02:00.0");
  EXPECT_EQ(device->description(), "apart 2");
  EXPECT_THAT(Refusal(ApartPlugin(), {.ordinal = 9}), HasSubstr("there are 4 apart devices"));
  EXPECT_TRUE((*Device::Open(kernels::CpuPlugin(), {.deterministic = true}))->host_memory());
}

TEST(DeviceTest, NoOptionIsDropped) {
  EXPECT_THAT(Refusal(kernels::CpuPlugin(), {.provider = "sm90"}), HasSubstr("\"sm90\""));
  EXPECT_THAT(Refusal(kernels::CpuPlugin(), {.spare_units = 4}), HasSubstr("spare_units 4"));
  annulusComputeV1 old = *kernels::CpuPlugin();
  old.struct_size = offsetof(annulusComputeV1, copy);
  old.abi_minor = 1;
  EXPECT_EQ(Refusal(&old, {}), "");
  EXPECT_THAT(Refusal(&old, {.deterministic = true}), HasSubstr("is of ABI minor 1"));
}

TEST(DeviceTest, MemoryThatNobodyCopiesIsOfNoUse) {
  annulusComputeV1 table = *ApartPlugin();
  table.copy = nullptr;
  EXPECT_THAT(Refusal(&table, {}), HasSubstr("the host cannot touch, and no copies"));
  table = *ApartPlugin();
  table.struct_size = offsetof(annulusComputeV1, copy);
  EXPECT_THAT(Refusal(&table, {}), HasSubstr("the host cannot touch, and no copies"));
}

// Both kinds of memory, and copies each way; on the host's own memory at once.
TEST(DeviceTest, CopiesGoEveryWay) {
  for (const annulusComputeV1* table : {kernels::CpuPlugin(), ApartPlugin()}) {
    const auto device = *Device::Open(table, {});
    Device::Queue queue = *device->BorrowQueue();
    void* there = *device->Allocate(4096, Memory::kDevice);
    void* here = *device->Allocate(4096, Memory::kHost);
    EXPECT_EQ(CountApart().pinned, device->host_memory() ? 0 : 1);
    const std::vector<uint8_t> from = {1, 2, 3, 4, 5, 6};
    // Two rows of three bytes, ten apart on the device, and back.
    annulusCopyArgs args = {sizeof(args), there, from.data(), 3, 2, 10, 3};
    ASSERT_TRUE(device->Copy(queue, args).ok());
    args = {sizeof(args), here, there, 3, 2, 3, 10};
    ASSERT_TRUE(device->Copy(queue, args).ok());
    ASSERT_TRUE(queue.Drain(kNever).ok());
    const auto* got = static_cast<const uint8_t*>(here);
    EXPECT_EQ(std::vector<uint8_t>(got, got + 6), from);
    device->Free(there, Memory::kDevice);
    device->Free(here, Memory::kHost);
  }
  EXPECT_EQ(CountApart().pinned, 0);
}

}  // namespace
}  // namespace annulus::worker
