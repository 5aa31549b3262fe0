// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/plan_cache.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "server/ring/plan_json.h"

namespace annulus::coordinator {
namespace {

constexpr size_t kAnySize = size_t{64} << 20;

ring::Spec SpecOf(int64_t length, int window = 0) {
  return {.query_length = length,
          .kv_length = length,
          .context_parallel_size = 4,
          .window_size = window,
          .mask = {.kind = ring::MaskKind::kCausal}};
}

TEST(PlanCache, MakesOnceAndFindsBySpecAndDigest) {
  PlanCache cache({});
  EXPECT_EQ(cache.Find(SpecOf(64)), nullptr);
  const auto made = cache.Make(SpecOf(64), kAnySize);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(cache.Find(SpecOf(64)), *made);
  EXPECT_EQ(cache.Find(SpecOf(64, 4)), *made) << "a window of 0 stands for N";
  EXPECT_EQ(cache.Find(SpecOf(64, 2)), nullptr);
  EXPECT_EQ(cache.FindDigest((*made)->digest), *made);
  EXPECT_EQ(cache.counts().hits, 2u);
  EXPECT_EQ(cache.counts().misses, 1u);
  const auto parsed = ring::ParsePlanJson(*(*made)->json);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->digest, (*made)->digest);
}

TEST(PlanCache, SpecsThatCannotBePlannedAreRefusedAndNotKept) {
  PlanCache cache({});
  EXPECT_EQ(cache.Make(SpecOf(64, 3), kAnySize).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cache.Make(SpecOf(64), 10).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cache.counts().plans, 0u);
}

TEST(PlanCache, TheLeastRecentlyUsedGoesFirst) {
  PlanCache cache({.plans_max = 2});
  const auto first = cache.Make(SpecOf(64), kAnySize);
  const auto second = cache.Make(SpecOf(128), kAnySize);
  cache.FindDigest((*first)->digest);
  ASSERT_TRUE(cache.Make(SpecOf(256), kAnySize).ok());
  EXPECT_TRUE(cache.Has(SpecOf(64)));
  EXPECT_FALSE(cache.Has(SpecOf(128)));
  EXPECT_EQ(cache.FindDigest((*second)->digest), nullptr);
  EXPECT_EQ(cache.counts().plans, 2u);
}

TEST(PlanCache, BytesAreLimitedButTheNewestPlanIsKept) {
  PlanCache cache({.plans_max = 8, .bytes_max = 1});
  ASSERT_TRUE(cache.Make(SpecOf(64), kAnySize).ok());
  ASSERT_TRUE(cache.Make(SpecOf(128), kAnySize).ok());
  EXPECT_FALSE(cache.Has(SpecOf(64)));
  EXPECT_TRUE(cache.Has(SpecOf(128)));
}

TEST(PlanCache, ManyThreadsAgree) {
  PlanCache cache({.plans_max = 3});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int i = 0; i < 40; ++i) {
        const ring::Spec spec = SpecOf(64 + 8 * ((i + t) % 5));
        const SharedPlan held = cache.Find(spec);
        const auto plan = held ? absl::StatusOr<SharedPlan>(held) : cache.Make(spec, kAnySize);
        ASSERT_TRUE(plan.ok());
        ASSERT_EQ((*plan)->spec.query_length, spec.query_length);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(cache.counts().plans, 3u);
  EXPECT_EQ(cache.counts().hits + cache.counts().misses, 160u);
}

}  // namespace
}  // namespace annulus::coordinator
