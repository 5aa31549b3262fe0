// SPDX-License-Identifier: Apache-2.0
#include "server/worker/session.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>

#include "kernels/cpu/cpu_plugin.h"
#include "server/base/fault_info.h"
#include "server/worker/device.h"
#include "server/worker/session_store.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker {
namespace {

using testing::SharedMemory;

TEST(RegionTest, TakesASealedMemfdAndSeesItsBytes) {
  SharedMemory memory(8192);
  memory.data()[100] = 42;
  const auto region = Region::Map(memory.DupFd(), 8192, 7);
  ASSERT_TRUE(region.ok()) << region.status();
  EXPECT_EQ((*region)->data()[100], 42);
  EXPECT_EQ((*region)->generation(), 7u);
  (*region)->data()[5] = 9;
  EXPECT_EQ(memory.data()[5], 9);
}

TEST(RegionTest, RefusesWhatCouldShrinkOrIsTooSmall) {
  SharedMemory open(8192, /*sealed=*/false);
  EXPECT_EQ(Region::Map(open.DupFd(), 8192, 1).status().code(), absl::StatusCode::kInvalidArgument);
  SharedMemory memory(8192);
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{8193}, ~uint64_t{0}}) {
    EXPECT_EQ(Region::Map(memory.DupFd(), bytes, 1).status().code(),
              absl::StatusCode::kInvalidArgument)
        << bytes;
  }
  EXPECT_FALSE(Region::Map(-1, 100, 1).ok());
}

TEST(RegionTest, ClosesTheDescriptorItWasGiven) {
  SharedMemory memory(4096);
  const int good = memory.DupFd();
  ASSERT_TRUE(Region::Map(good, 4096, 1).ok());
  EXPECT_EQ(fcntl(good, F_GETFD), -1);
  const int bad = memory.DupFd();
  ASSERT_FALSE(Region::Map(bad, 1 << 20, 1).ok());
  EXPECT_EQ(fcntl(bad, F_GETFD), -1);
}

class SessionTest : public ::testing::Test {
 protected:
  SessionTest()
      : device_(*Device::Open(kernels::CpuPlugin(), {})),
        pool_(std::make_shared<MemoryPool>(device_, 1 << 20)) {}

  TensorRef InRegion(uint64_t generation) const {
    TensorRef ref;
    ref.region = RegionRef{1, generation, 0};
    ref.batch = 1;
    ref.rows = 4;
    ref.heads = 1;
    ref.head_dim = 16;
    ref.tokens = {{0, 4, 1}};
    return ref;
  }

  std::shared_ptr<Device> device_;
  std::shared_ptr<MemoryPool> pool_;
  Session session_;
  const TensorShape shape_{"q", 1, 1, 16};
};

TEST_F(SessionTest, GenerationsFenceRegions) {
  SharedMemory memory(4096);
  const auto add = [&](uint64_t generation) {
    return session_.AddRegion(1, *Region::Map(memory.DupFd(), 4096, generation));
  };
  ASSERT_TRUE(add(3).ok());
  EXPECT_EQ(add(3).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(add(2).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(session_.Resolve(InRegion(3), shape_, Session::Use::kInput).ok());
  ASSERT_TRUE(add(4).ok());
  const auto stale = session_.Resolve(InRegion(3), shape_, Session::Use::kInput);
  EXPECT_EQ(stale.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetFaultInfo(stale.status())->reason, "REGION_GONE");
}

TEST_F(SessionTest, ARemovedRegionLivesAsLongAsItIsUsed) {
  auto memory = std::make_unique<SharedMemory>(4096);
  memory->data()[0] = 77;
  ASSERT_TRUE(session_.AddRegion(1, *Region::Map(memory->DupFd(), 4096, 1)).ok());
  auto used = session_.Resolve(InRegion(1), shape_, Session::Use::kOutput);
  ASSERT_TRUE(used.ok()) << used.status();
  ASSERT_TRUE(session_.RemoveRegion(1).ok());
  memory.reset();
  EXPECT_EQ(used->data[0], 77);
  used->data[1] = 1;
  EXPECT_EQ(session_.RemoveRegion(1).code(), absl::StatusCode::kNotFound);
}

TEST_F(SessionTest, UploadsAreSequentialAndResumable) {
  ASSERT_TRUE(session_.CreateTensor(pool_.get(), "t", 256).ok());
  ASSERT_TRUE(session_.CreateTensor(pool_.get(), "t", 256).ok());
  EXPECT_EQ(session_.CreateTensor(pool_.get(), "t", 257).code(), absl::StatusCode::kAlreadyExists);
  const auto tensor = session_.FindTensor("t");
  ASSERT_TRUE(tensor.ok());
  const std::string bytes(256, 'x');
  EXPECT_EQ(*(*tensor)->Write(0, bytes.data(), 100), 100u);
  const auto gap = (*tensor)->Write(101, bytes.data(), 10);
  EXPECT_EQ(gap.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(GetFaultInfo(gap.status())->metadata.at("committed_bytes"), "100");
  EXPECT_EQ((*tensor)->Write(0, bytes.data(), 100).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_FALSE((*tensor)->Write(100, bytes.data(), 157).ok());
  EXPECT_FALSE((*tensor)->Write(100, bytes.data(), ~size_t{0}).ok());
  EXPECT_EQ(*(*tensor)->Write(100, bytes.data(), 156), 256u);
}

TEST_F(SessionTest, AnInputMustBeUploadedFirst) {
  ASSERT_TRUE(session_.CreateTensor(pool_.get(), "t", 256).ok());
  TensorRef ref = InRegion(1);
  ref.region.reset();
  ref.tensor_id = "t";
  const auto early = session_.Resolve(ref, shape_, Session::Use::kInput);
  EXPECT_EQ(early.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(session_.Resolve(ref, shape_, Session::Use::kOutput).ok());
  (*session_.FindTensor("t"))->CommitAll();
  EXPECT_TRUE(session_.Resolve(ref, shape_, Session::Use::kInput).ok());
  ASSERT_TRUE(session_.DeleteTensor("t").ok());
  EXPECT_EQ(session_.Resolve(ref, shape_, Session::Use::kInput).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(SessionTest, FreshTensorsAreZeroEvenInUsedMemory) {
  {
    auto buffer = pool_->Take(4096, "secret");
    std::fill_n(buffer->data(), 4096, uint8_t{0xab});
  }
  ASSERT_TRUE(session_.CreateTensor(pool_.get(), "t", 4096).ok());
  const auto tensor = session_.FindTensor("t");
  for (int i = 0; i < 4096; ++i) ASSERT_EQ((*tensor)->data()[i], 0) << i;
}

TEST_F(SessionTest, TensorsBeyondTheLimitAreRefused) {
  EXPECT_EQ(session_.CreateTensor(pool_.get(), "big", 2 << 20).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(session_.CreateTensor(pool_.get(), "huge", ~uint64_t{0}).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(pool_->ledger().used_bytes(), 0u);
}

TEST_F(SessionTest, RetainedKvOfOlderEpochsIsDropped) {
  for (const uint64_t epoch : {1, 2, 3}) {
    auto kept = std::make_shared<RetainedKv>();
    kept->group = "g";
    kept->epoch = epoch;
    ASSERT_TRUE(session_.Retain("r" + std::to_string(epoch), kept).ok());
  }
  session_.DropRetainedBefore("other", 9);
  session_.DropRetainedBefore("g", 3);
  EXPECT_EQ(session_.FindRetained("r1"), nullptr);
  EXPECT_EQ(session_.FindRetained("r2"), nullptr);
  EXPECT_NE(session_.FindRetained("r3"), nullptr);
}

TEST(SessionStoreTest, IdsAreLongUniqueAndGoneOnceClosed) {
  SessionStore store;
  std::set<std::string> ids;
  for (int i = 0; i < 100; ++i) ids.insert(store.Open());
  EXPECT_EQ(ids.size(), 100u);
  EXPECT_EQ(ids.begin()->size(), 32u);
  EXPECT_TRUE(store.Find(*ids.begin()).ok());
  store.Close(*ids.begin());
  const auto gone = store.Find(*ids.begin());
  EXPECT_EQ(gone.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetFaultInfo(gone.status())->reason, "SESSION_GONE");
}

}  // namespace
}  // namespace annulus::worker
