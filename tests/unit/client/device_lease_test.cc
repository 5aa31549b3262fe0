// SPDX-License-Identifier: Apache-2.0
// Device memory of a caller, from its handle to a worker's lease: the client's side against the
// worker's own, on devices apart from the host.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "annulus/device_memory.h"
#include "client/src/region.h"
#include "client/src/region_lease.h"
#include "server/worker/region_server.h"
#include "tests/support/apart/apart_plugin.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::client {
namespace {

using testing::HasSubstr;
using testing_support::ApartPlugin;
using testing_support::CountApart;

constexpr size_t kBytes = 1 << 16;

class DeviceLeaseTest : public testing::Test {
 protected:
  void SetUp() override {
    annulusComputeOptions options{};
    options.struct_size = sizeof(options);
    options.threads = 1;
    ASSERT_EQ(ApartPlugin()->open(&options, &device_), ANNULUS_COMPUTE_OK);
    ASSERT_EQ(ApartPlugin()->alloc(device_, kBytes, &data_), ANNULUS_COMPUTE_OK);
    annulusMemoryHandle exported{};
    exported.struct_size = sizeof(exported);
    ASSERT_EQ(ApartPlugin()->export_memory(device_, data_, &exported), ANNULUS_COMPUTE_OK);
    handle_.kind = DeviceMemoryHandle::Kind::kDescriptor;
    handle_.descriptor = exported.descriptor;
    handle_.allocation_bytes = exported.bytes;
    handle_.offset = exported.offset;
    handle_.bus_id = "0000:00:00.0";
  }
  void TearDown() override {
    close(handle_.descriptor);
    ApartPlugin()->free(device_, data_);
    ApartPlugin()->close(device_);
  }

  annulusDevice* device_ = nullptr;
  void* data_ = nullptr;
  DeviceMemoryHandle handle_;
  std::shared_ptr<RegionRegistry> registry_ = std::make_shared<RegionRegistry>([](uint64_t) {});
};

TEST_F(DeviceLeaseTest, IsFoundByAddressAndNeverTouched) {
  auto region = *registry_->Adopt(data_, kBytes, handle_);
  EXPECT_EQ(registry_->Find(static_cast<uint8_t*>(data_) + 100, 1000), region);
  ASSERT_NE(region->device_memory(), nullptr);
  EXPECT_NE(region->identity().fd, handle_.descriptor);
  EXPECT_FALSE(region->spoiled());
  // It cannot be moved from under a late writer.
  ASSERT_TRUE(region->Rehome().ok());
  EXPECT_TRUE(region->spoiled());
  const int duplicate = region->identity().fd;
  region.reset();
  EXPECT_EQ(fcntl(duplicate, F_GETFD), -1);
  EXPECT_NE(fcntl(handle_.descriptor, F_GETFD), -1);
}

TEST_F(DeviceLeaseTest, HandlesThatCannotBeAreRefused) {
  EXPECT_FALSE(registry_->Adopt(nullptr, kBytes, handle_).ok());
  EXPECT_FALSE(registry_->Adopt(data_, 0, handle_).ok());
  EXPECT_FALSE(registry_->Adopt(data_, kBytes + 1, handle_).ok());
  DeviceMemoryHandle bad = handle_;
  bad.offset = ~size_t{0};
  EXPECT_FALSE(registry_->Adopt(data_, 1, bad).ok());
  bad = handle_;
  bad.descriptor = -1;
  EXPECT_FALSE(registry_->Adopt(data_, kBytes, bad).ok());
}

TEST_F(DeviceLeaseTest, AWorkerOnThatDeviceTakesIt) {
  worker::testing::TestRing::Options options;
  options.compute = ApartPlugin();
  worker::testing::TestRing ring(options);
  const auto server = *worker::RegionServer::Start({}, &ring.engine(0));
  RegionLeases leases(server->path(), ring.session(0), [] { return true; });
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  const auto region = *registry_->Adopt(data_, kBytes, handle_);
  const absl::Status leased = leases.Ensure(*region, deadline);
  ASSERT_TRUE(leased.ok()) << leased;
  EXPECT_TRUE(leases.Ensure(*region, deadline).ok());
  EXPECT_EQ(CountApart().imported, 1);
  EXPECT_EQ(ring.engine(0).memory_use().leased, kBytes);
  leases.Remove(region->identity().id);
  EXPECT_EQ(CountApart().imported, 0);
  handle_.bus_id = "0000:01:00.0";
  const auto elsewhere = *registry_->Adopt(data_, kBytes, handle_);
  EXPECT_THAT(std::string(leases.Ensure(*elsewhere, deadline).message()),
              HasSubstr("lies on device 0000:01:00.0"));
  // Memory of the host goes over the same connection.
  EXPECT_TRUE(leases.Ensure(**registry_->Create(kBytes), deadline).ok());
}

}  // namespace
}  // namespace annulus::client
