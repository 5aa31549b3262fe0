// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/call_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <vector>

namespace annulus::rpc {
namespace {

std::chrono::steady_clock::time_point Patience() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(10);
}

TEST(CallPool, RefusesBeyondItsThreadsAndItsQueue) {
  std::promise<void> gate;
  const std::shared_future<void> open = gate.get_future().share();
  std::atomic<int> ran{0};
  CallPool pool(2, 1);
  const auto job = [&] {
    open.wait();
    ++ran;
  };
  EXPECT_TRUE(pool.Submit(job));
  EXPECT_TRUE(pool.Submit(job));
  EXPECT_TRUE(pool.Submit(job));
  EXPECT_FALSE(pool.Submit(job));
  EXPECT_FALSE(pool.AwaitIdle(std::chrono::steady_clock::now()));
  gate.set_value();
  EXPECT_TRUE(pool.AwaitIdle(Patience()));
  EXPECT_EQ(ran, 3);
  EXPECT_TRUE(pool.Submit(job));
  EXPECT_TRUE(pool.AwaitIdle(Patience()));
  EXPECT_EQ(ran, 4);
}

TEST(CallPool, StartsJobsInTheirOrder) {
  std::vector<int> order;
  {
    CallPool pool(1, 100);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(pool.Submit([&order, i] { order.push_back(i); }));
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(CallPool, TakesNothingOnceClosedButRunsWhatItTook) {
  std::atomic<int> ran{0};
  {
    CallPool pool(1, 10);
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(pool.Submit([&ran] { ++ran; }));
    pool.Close();
    EXPECT_FALSE(pool.Submit([&ran] { ++ran; }));
  }
  EXPECT_EQ(ran, 5);
}

}  // namespace
}  // namespace annulus::rpc
