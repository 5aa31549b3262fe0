// SPDX-License-Identifier: Apache-2.0
#include "server/worker/ledger.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "kernels/cpu/cpu_plugin.h"
#include "server/base/fault_info.h"
#include "server/worker/device.h"
#include "server/worker/memory_pool.h"

namespace annulus::worker {
namespace {

TEST(LedgerTest, RefusesBeyondTheLimitAndNamesTheNumbers) {
  Ledger ledger(1000);
  auto first = ledger.Reserve(600, "slots");
  ASSERT_TRUE(first.ok());
  const auto second = ledger.Reserve(401, "more slots");
  ASSERT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  const auto info = GetFaultInfo(second.status());
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason, "MEMORY_LIMIT");
  EXPECT_EQ(info->metadata.at("asked_bytes"), "401");
  EXPECT_EQ(info->metadata.at("used_bytes"), "600");
  EXPECT_EQ(info->metadata.at("limit_bytes"), "1000");
  EXPECT_TRUE(ledger.Reserve(400, "the rest").ok());
}

TEST(LedgerTest, HugeRequestsDoNotWrapAround) {
  Ledger ledger(1000);
  auto held = ledger.Reserve(10, "a little");
  ASSERT_TRUE(held.ok());
  EXPECT_FALSE(ledger.Reserve(~uint64_t{0}, "everything").ok());
  EXPECT_FALSE(ledger.Reserve(~uint64_t{0} - 5, "nearly everything").ok());
  EXPECT_EQ(ledger.used_bytes(), 10u);
}

TEST(LedgerTest, GivesBackOnceWhenMoved) {
  Ledger ledger(0);
  {
    auto reserved = ledger.Reserve(100, "x");
    Ledger::Reservation moved = *std::move(reserved);
    Ledger::Reservation again = std::move(moved);
    EXPECT_EQ(ledger.used_bytes(), 100u);
    again.SetIdle(true);
    EXPECT_EQ(ledger.used_bytes(), 0u);
    EXPECT_EQ(ledger.idle_bytes(), 100u);
  }
  EXPECT_EQ(ledger.used_bytes(), 0u);
  EXPECT_EQ(ledger.idle_bytes(), 0u);
}

TEST(LedgerTest, PeaksAreGlobalAndPerWatch) {
  Ledger ledger(0);
  auto early = ledger.Reserve(300, "early");
  {
    auto high = ledger.Reserve(700, "high");
    EXPECT_EQ(ledger.peak_bytes(), 1000u);
  }
  Ledger::PeakWatch watch(&ledger);
  EXPECT_EQ(watch.peak_bytes(), 300u);
  { auto more = ledger.Reserve(50, "more"); }
  EXPECT_EQ(watch.peak_bytes(), 350u);
  EXPECT_EQ(ledger.peak_bytes(), 1000u);
}

class MemoryPoolTest : public ::testing::Test {
 protected:
  std::shared_ptr<MemoryPool> Pool(uint64_t limit) {
    auto device = Device::Open(kernels::CpuPlugin(), {});
    EXPECT_TRUE(device.ok()) << device.status();
    return std::make_shared<MemoryPool>(*device, limit);
  }
};

TEST_F(MemoryPoolTest, KeepsWhatComesBackAndReusesIt) {
  auto pool = Pool(1 << 20);
  const uint8_t* where = nullptr;
  {
    auto buffer = pool->Take(100'000, "a");
    ASSERT_TRUE(buffer.ok());
    where = buffer->data();
    EXPECT_GE(buffer->bytes(), 100'000u);
    EXPECT_EQ(pool->ledger().used_bytes(), buffer->bytes());
  }
  EXPECT_EQ(pool->ledger().used_bytes(), 0u);
  EXPECT_GT(pool->ledger().idle_bytes(), 0u);
  auto again = pool->Take(99'000, "b");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->data(), where);
  EXPECT_EQ(pool->ledger().idle_bytes(), 0u);
}

TEST_F(MemoryPoolTest, IdleMemoryGivesWay) {
  auto pool = Pool(1 << 20);
  { auto small = pool->Take(200'000, "a"); }
  ASSERT_GT(pool->ledger().idle_bytes(), 0u);
  auto large = pool->Take((1 << 20) - 4096, "b");
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_EQ(pool->ledger().idle_bytes(), 0u);
  EXPECT_EQ(pool->Take(8192, "c").status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(MemoryPoolTest, RefusedRequestsKeepIdleMemory) {
  auto pool = Pool(1 << 20);
  { auto small = pool->Take(200'000, "a"); }
  const uint64_t idle = pool->ledger().idle_bytes();
  EXPECT_FALSE(pool->Take(2 << 20, "too much").ok());
  EXPECT_EQ(pool->ledger().idle_bytes(), idle);
}

TEST_F(MemoryPoolTest, BuffersMayOutliveTheNameOfThePool) {
  auto pool = Pool(0);
  auto buffer = pool->Take(5000, "a");
  ASSERT_TRUE(buffer.ok());
  pool.reset();
  buffer->data()[0] = 1;
}

}  // namespace
}  // namespace annulus::worker
