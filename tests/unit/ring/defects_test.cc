// SPDX-License-Identifier: Apache-2.0
// Defects known from public ring attentions, as plans. The checker names each; executed against a
// hostile wire each gives a wrong result, so the refusals are not pedantry.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/ring/checker/checker.h"
#include "tests/support/plan_interpreter.h"
#include "tests/unit/ring/plans.h"

namespace annulus::testing {
namespace {

using ring::Direction;
using ring::Plan;
using ::testing::AllOf;
using ::testing::HasSubstr;

// One pair of buffers for the inner ring, the first of which also holds the block that the round
// began with: what the second inner receive of a round overwrites, the outer send still reads.
Plan InnerReceiveOverwritesTheOuterSend(int ranks, int window) {
  Plan plan = PlanOf(FullMask(SmallSpec(Direction::kForward, ranks, window)));
  const auto shared = [&](int round, int inner) {
    // Buffer of the block attended in that round and inner step.
    if (round == 0 && inner == 0) return std::string(ring::kOwnSlot);
    return "round" + std::to_string(round % 2) + (inner % 2 == 0 ? "a" : "b");
  };
  for (ring::Compute& compute : plan.computes) {
    compute.slot = shared(compute.step / window, compute.step % window);
  }
  for (ring::Transfer& transfer : plan.transfers) {
    const int post = transfer.post_step, due = transfer.due_step;
    transfer.src_slot = shared(post / window, post % window);
    transfer.dst_slot = shared(due / window, due % window);
  }
  return plan;
}

// A single receive buffer for the outer ring, filled anew while the block before it is sent on.
Plan OuterBufferReusedAcrossRounds(int ranks, int window) {
  Plan plan = PlanOf(FullMask(SmallSpec(Direction::kForward, ranks, window)));
  const auto merge = [](std::string* slot) {
    if (*slot == "outer1") *slot = "outer0";
  };
  for (ring::Compute& compute : plan.computes) merge(&compute.slot);
  for (ring::Transfer& transfer : plan.transfers) {
    merge(&transfer.src_slot);
    merge(&transfer.dst_slot);
  }
  return plan;
}

// The gradients stop one hop short of their owner.
Plan GradientsNeverGetHome(int ranks, int window) {
  Plan plan = PlanOf(Keeping(FullMask(SmallSpec(Direction::kBackward, ranks, window))));
  std::erase_if(plan.transfers, [&](const ring::Transfer& transfer) {
    return transfer.dst_slot == plan.gradient_home;
  });
  return plan;
}

void ExpectRefused(const Plan& plan, const std::string& rule, const std::string& what) {
  EXPECT_THAT(std::string(ring::CheckPlan(plan).message()),
              AllOf(HasSubstr("'" + rule + "'"), HasSubstr("rank "), HasSubstr("step "),
                    HasSubstr("slot '"), HasSubstr(what)));
}

// Whether some timing of the wire makes the plan give a wrong result.
bool GoesWrong(const Plan& plan) {
  const AttentionInput input = RandomInput(plan.query_length, plan.kv_length, 1);
  const AttentionResult expected = DirectAttention(plan.mask, input);
  for (uint64_t timing = 0; timing < 16; ++timing) {
    const auto result = plan.direction == Direction::kForward
                            ? RunForward(plan, input, timing, nullptr)
                            : RunBackward(plan, input, expected, timing, nullptr);
    if (!result.ok() || !Agree(*result, expected)) return true;
  }
  return false;
}

TEST(Defects, InnerReceiveOverwritesTheOuterSend) {
  const Plan plan = InnerReceiveOverwritesTheOuterSend(9, 3);
  ExpectRefused(plan, "overwrite", "is sent to rank");
  EXPECT_TRUE(GoesWrong(plan));
}

TEST(Defects, InnerReceiveOverwritesTheOuterSendOnlyFromThreeRanksAWindowOn) {
  const Plan plan = InnerReceiveOverwritesTheOuterSend(6, 2);
  EXPECT_TRUE(ring::CheckPlan(plan).ok()) << ring::CheckPlan(plan);
  EXPECT_FALSE(GoesWrong(plan));
}

TEST(Defects, OuterBufferReusedAcrossRounds) {
  const Plan plan = OuterBufferReusedAcrossRounds(6, 2);
  ExpectRefused(plan, "overwrite", "slot 'outer0'");
  EXPECT_TRUE(GoesWrong(plan));
}

TEST(Defects, GradientsNeverGetHome) {
  for (const int window : {2, 4, 8}) {
    const Plan plan = GradientsNeverGetHome(8, window);
    ExpectRefused(plan, "gradient", "never get home");
    EXPECT_TRUE(GoesWrong(plan));
  }
}

}  // namespace
}  // namespace annulus::testing
