// SPDX-License-Identifier: Apache-2.0
// A plan with a fault in it is refused, unless the fault does no harm: what the checker lets pass
// gives the right answer whatever the timing of the wire.
#include "tests/property/ring/mutations.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <map>

#include "server/ring/checker/checker.h"
#include "server/ring/planner.h"
#include "tests/support/plan_interpreter.h"

namespace annulus::testing {
namespace {

constexpr int kPlans = 1500;
constexpr int kFaultsPerPlan = 12;
constexpr uint64_t kTimings = 4;

// Whether the plan gives the definition's result under several timings.
bool Harmless(const ring::Plan& plan, const AttentionInput& input, const AttentionResult& expected,
              uint64_t seed) {
  for (uint64_t timing = 0; timing < kTimings; ++timing) {
    const auto result = plan.direction == ring::Direction::kForward
                            ? RunForward(plan, input, seed + timing, nullptr)
                            : RunBackward(plan, input, expected, seed + timing, nullptr);
    if (!result.ok() || !Agree(*result, expected)) return false;
  }
  return true;
}

// Faults that leave every index in bounds, so that even a refused plan can be executed.
bool CanBeExecuted(const std::string& fault) {
  return fault == "compute dropped" || fault == "compute duplicated" || fault == "transfer dropped";
}

TEST(Mutations, WhatTheCheckerLetsPassDoesNoHarm) {
  std::map<std::string, std::pair<int, int>> refused;  // of how many, by fault
  int faults = 0, passed = 0, harmful = 0, pedantic = 0;
  for (int i = 0; i < kPlans; ++i) {
    const uint64_t seed = BaseSeed() + static_cast<uint64_t>(i);
    Random random(seed);
    ring::Spec spec = RandomSpec(random, 8, 24);
    spec.direction = static_cast<ring::Direction>(Draw(random, 0, 1));
    const auto plan = ring::MakePlan(spec);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const AttentionInput input = RandomInput(spec.query_length, spec.kv_length, seed);
    const AttentionResult expected = DirectAttention(spec.mask, input);
    for (int fault = 0; fault < kFaultsPerPlan; ++fault) {
      ring::Plan faulty = *plan;
      const auto name = Mutate(random, &faulty);
      if (!name.has_value()) continue;
      SCOPED_TRACE(absl::StrCat("ANNULUS_TEST_SEED=", seed, " fault ", fault, " '", *name,
                                "': ", Describe(spec)));
      ++faults;
      ++refused[*name].second;
      if (!ring::CheckPlan(faulty).ok()) {
        ++refused[*name].first;
        if (CanBeExecuted(*name)) ++(Harmless(faulty, input, expected, seed) ? pedantic : harmful);
        continue;
      }
      ++passed;
      ASSERT_TRUE(Harmless(faulty, input, expected, seed)) << "a harmful plan was let pass";
    }
  }
  for (const auto& [name, counts] : refused) {
    std::printf("%-34s %5d of %5d refused\n", name.c_str(), counts.first, counts.second);
    EXPECT_GT(counts.first, 0) << name << " was never refused";
  }
  // The judge notices faults, and the checker refuses none without a reason.
  EXPECT_GT(harmful, 500);
  EXPECT_LT(pedantic, harmful / 20);
  // Both sides of the property must have been seen.
  EXPECT_GT(passed, faults / 100);
  EXPECT_GT(faults - passed, faults / 2);
}

}  // namespace
}  // namespace annulus::testing
