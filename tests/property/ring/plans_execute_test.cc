// SPDX-License-Identifier: Apache-2.0
// Whatever the spec: the plan passes the checker, and executed against the worst wire it gives the
// attention and the gradients of the definition.
#include <gtest/gtest.h>

#include "server/ring/checker/checker.h"
#include "server/ring/planner.h"
#include "tests/property/ring/random_spec.h"
#include "tests/support/plan_interpreter.h"
#include "tests/support/under_sanitizer.h"

namespace annulus::testing {
namespace {

constexpr int kSpecs = kUnderSanitizer ? 500 : 10000;

void CheckSpec(ring::Spec spec, uint64_t seed) {
  const AttentionInput input = RandomInput(spec.query_length, spec.kv_length, seed);
  const AttentionResult expected = DirectAttention(spec.mask, input);

  spec.direction = ring::Direction::kForward;
  const auto forward = ring::MakePlan(spec);
  ASSERT_TRUE(forward.ok()) << forward.status();
  ASSERT_TRUE(ring::CheckPlan(*forward).ok()) << ring::CheckPlan(*forward);
  ResidentRows resident;
  const auto attended = RunForward(*forward, input, seed, &resident);
  ASSERT_TRUE(attended.ok()) << attended.status();
  ASSERT_TRUE(Agree(*attended, expected)) << "forward differs from the definition";

  spec.direction = ring::Direction::kBackward;
  const auto backward = ring::MakePlan(spec);
  ASSERT_TRUE(backward.ok()) << backward.status();
  ASSERT_TRUE(ring::CheckPlan(*backward).ok()) << ring::CheckPlan(*backward);
  ASSERT_EQ(backward->resident.size(), forward->resident.size());
  for (size_t i = 0; i < backward->resident.size(); ++i) {
    ASSERT_EQ(backward->resident[i].rank, forward->resident[i].rank);
    ASSERT_EQ(backward->resident[i].kv, forward->resident[i].kv);
    ASSERT_EQ(backward->resident[i].slot, "res");
  }
  const auto gradients = RunBackward(*backward, input, *attended, seed, &resident);
  ASSERT_TRUE(gradients.ok()) << gradients.status();
  ASSERT_TRUE(Agree(*gradients, expected)) << "backward differs from the definition";
}

TEST(PlansExecute, AnySpecGivesTheDefinition) {
  for (int i = 0; i < kSpecs; ++i) {
    const uint64_t seed = BaseSeed() + static_cast<uint64_t>(i);
    Random random(seed);
    const ring::Spec spec = RandomSpec(random, 16, 40);
    SCOPED_TRACE(absl::StrCat("ANNULUS_TEST_SEED=", seed, ": ", Describe(spec)));
    CheckSpec(spec, seed);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace annulus::testing
