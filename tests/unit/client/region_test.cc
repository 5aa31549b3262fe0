// SPDX-License-Identifier: Apache-2.0
#include "client/src/region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace annulus::client {
namespace {

class RegionTest : public testing::Test {
 protected:
  std::shared_ptr<Region> Create(size_t bytes) { return *registry_->Create(bytes); }

  std::vector<uint64_t> gone_;
  std::shared_ptr<RegionRegistry> registry_ =
      std::make_shared<RegionRegistry>([this](uint64_t id) { gone_.push_back(id); });
};

TEST_F(RegionTest, IsSealedSoThatNoWorkerFaultsOnIt) {
  const auto region = Create(10000);
  const int fd = region->identity().fd;
  EXPECT_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  EXPECT_NE(ftruncate(fd, 100), 0);
  EXPECT_NE(ftruncate(fd, 20000), 0);
}

TEST_F(RegionTest, IsFoundByAnyAddressInsideAndNoOther) {
  const auto region = Create(10000);
  EXPECT_EQ(registry_->Find(region->data(), 10000), region);
  EXPECT_EQ(registry_->Find(region->data() + 9999, 1), region);
  EXPECT_EQ(registry_->Find(region->data() + 1, 10000), nullptr);
  EXPECT_EQ(registry_->Find(region->data() - 1, 1), nullptr);
  int elsewhere = 0;
  EXPECT_EQ(registry_->Find(&elsewhere, sizeof(elsewhere)), nullptr);
}

TEST_F(RegionTest, GoneRegionsAreReportedAndForgotten) {
  auto region = Create(100);
  const uint64_t id = region->identity().id;
  const uint8_t* data = region->data();
  region.reset();
  EXPECT_EQ(gone_, std::vector<uint64_t>{id});
  EXPECT_EQ(registry_->Find(data, 1), nullptr);
}

TEST_F(RegionTest, OutlivesItsRegistry) {
  auto region = Create(100);
  registry_.reset();
  region->data()[99] = 1;
  region.reset();
  EXPECT_TRUE(gone_.empty());
}

// The defect that this forbids: a worker that was stopped in a call that failed wakes up later and
// writes its stale output over that of a newer call.
TEST_F(RegionTest, AfterRehomeALateWriterWritesWhereNobodyLooks) {
  const auto region = Create(8192);
  std::memset(region->data(), 7, 8192);
  const Region::Identity before = region->identity();
  const int workers_fd = dup(before.fd);
  auto* late =
      static_cast<uint8_t*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, workers_fd, 0));
  ASSERT_NE(late, MAP_FAILED);
  uint8_t* const address = region->data();
  ASSERT_TRUE(region->Rehome().ok());
  EXPECT_EQ(region->data(), address);
  late[5] = 99;
  EXPECT_EQ(region->data()[5], 7);
  EXPECT_EQ(region->data()[8191], 7);
  EXPECT_NE(region->identity().id, before.id);
  EXPECT_NE(region->identity().generation, before.generation);
  EXPECT_EQ(gone_, std::vector<uint64_t>{before.id});
  EXPECT_EQ(registry_->Find(address, 8192), region);
  munmap(late, 8192);
  close(workers_fd);
}

}  // namespace
}  // namespace annulus::client
