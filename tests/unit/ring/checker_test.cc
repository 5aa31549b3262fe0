// SPDX-License-Identifier: Apache-2.0
// One fault for each rule, and that the message names rule, rank, step and slot.
#include "server/ring/checker/checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/ring/token_ranges.h"
#include "tests/unit/ring/plans.h"

namespace annulus::ring {
namespace {

using ::annulus::testing::FullMask;
using ::annulus::testing::Keeping;
using ::annulus::testing::PlanOf;
using ::annulus::testing::SmallSpec;
using ::testing::AllOf;
using ::testing::HasSubstr;

Plan Forward() { return PlanOf(FullMask(SmallSpec(Direction::kForward, 4, 4))); }
Plan Backward() { return PlanOf(Keeping(FullMask(SmallSpec(Direction::kBackward, 4, 4)))); }

// The first transfer that arrives in that slot of that rank.
Transfer& ArrivalIn(Plan& plan, int rank, const std::string& slot) {
  for (Transfer& transfer : plan.transfers) {
    if (transfer.dst == rank && transfer.dst_slot == slot) return transfer;
  }
  ADD_FAILURE() << "no arrival in " << slot;
  return plan.transfers.front();
}

void ExpectBroken(const Plan& plan, const std::string& rule, const std::string& where) {
  const absl::Status status = CheckPlan(plan);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("plan breaks rule '" + rule + "'"), HasSubstr(where)));
}

TEST(Checker, TakesPlansAsTheyAre) {
  EXPECT_TRUE(CheckPlan(Forward()).ok()) << CheckPlan(Forward());
  EXPECT_TRUE(CheckPlan(Backward()).ok()) << CheckPlan(Backward());
}

TEST(Checker, Shape) {
  Plan plan = Forward();
  plan.transfers[0].due_step = plan.transfers[0].post_step;
  ExpectBroken(plan, "shape", "transfers[0].due_step must be 1..4, got 0");
  plan = Forward();
  plan.transfers[0].dst = plan.transfers[0].src;
  ExpectBroken(plan, "shape", "sends to itself");
  plan = Forward();
  plan.computes[3].slot = "Inner 0";
  ExpectBroken(plan, "shape", "computes[3].slot");
  plan = Forward();
  plan.computes[2].kv = {};
  ExpectBroken(plan, "shape", "computes[2].kv names no token");
  plan = Forward();
  plan.computes[0].into = "g0";
  ExpectBroken(plan, "shape", "a forward plan has no gradients");
  plan = Forward();
  plan.ranks.pop_back();
  ExpectBroken(plan, "shape", "number of ranks must be 4..4, got 3");
  plan = Forward();
  plan.computes[1].q.push_back(plan.computes[1].q.front());
  ExpectBroken(plan, "shape", "names a token twice");
  plan = Backward();
  plan.gradient_home = "inner0";
  ExpectBroken(plan, "shape", "holds KV as well as gradients");
}

TEST(Checker, Ownership) {
  Plan plan = Forward();
  plan.ranks[1].kv = plan.ranks[0].kv;
  ExpectBroken(plan, "ownership", "belong to rank 0 and to rank 1");
  plan = Forward();
  plan.ranks[2].q = {};
  ExpectBroken(plan, "ownership", "belong to no rank");
}

TEST(Checker, QueriesAreComputedByTheirOwner) {
  Plan plan = Forward();
  for (Compute& compute : plan.computes) {
    if (compute.step == 0 && compute.rank == 2) compute.q = plan.ranks[3].q;
  }
  ExpectBroken(plan, "query-owner", "rank 2, step 0, slot 'own'");
}

TEST(Checker, MaskCase) {
  Plan plan = PlanOf(SmallSpec(Direction::kForward, 4, 4));
  for (Compute& compute : plan.computes) compute.mask_case = MaskCase::kFull;
  ExpectBroken(plan, "mask-case", "are partial, the plan says full");
}

TEST(Checker, CoverageTwiceAndNever) {
  Plan plan = Forward();
  plan.computes.push_back(plan.computes.back());
  ExpectBroken(plan, "coverage", "rank 3, step 3");
  plan = Forward();
  plan.computes.pop_back();
  ExpectBroken(plan, "coverage", "never attend keys");
}

TEST(Checker, ContentMustBeThereWhenItIsRead) {
  Plan plan = Forward();
  std::erase_if(plan.transfers, [](const Transfer& t) { return t.dst == 2 && t.due_step == 1; });
  ExpectBroken(plan, "content", "rank 2, step 1, slot 'inner0'");
  plan = Forward();
  ArrivalIn(plan, 1, "inner0").tokens.pop_back();
  ExpectBroken(plan, "content", "slot 'inner0'");
}

TEST(Checker, OwnIsNeverWritten) {
  Plan plan = Forward();
  Transfer intruder = ArrivalIn(plan, 1, "inner1");
  intruder.dst_slot = kOwnSlot;
  plan.transfers.push_back(intruder);
  ExpectBroken(plan, "overwrite", "rank 1, step 1, slot 'own': must stay as it is");
}

TEST(Checker, NothingIsReadWhileItIsReceived) {
  Plan plan = Forward();
  ArrivalIn(plan, 1, "inner0").due_step = 2;
  ExpectBroken(plan, "overwrite", "rank 1, step 1, slot 'inner0'");
}

TEST(Checker, ResidentStandsAtTheEnd) {
  Plan plan = PlanOf(Keeping(FullMask(SmallSpec(Direction::kForward, 4, 4))));
  plan.resident[2].slot = "inner1";  // the last but one
  ExpectBroken(plan, "resident", "rank 2, step 4, slot 'inner1'");
  plan = Backward();
  Transfer intruder = ArrivalIn(plan, 1, "inner1");
  intruder.dst_slot = "res";
  plan.transfers.push_back(intruder);
  ExpectBroken(plan, "resident", "slot 'res': must stay as it is");
}

TEST(Checker, GradientsAreNotUsedWhileTheyAreSent) {
  Plan plan = Backward();
  for (Compute& compute : plan.computes) {
    if (compute.rank == 3 && compute.step == 1) compute.into = "g0";
  }
  ExpectBroken(plan, "overwrite", "rank 3, step 1, slot 'g0': is used while it is being sent");
}

TEST(Checker, GradientsGoToTheOwnerAndWhole) {
  Plan plan = Backward();
  for (Compute& compute : plan.computes) {
    if (compute.rank == 0 && compute.step == 0) compute.into = plan.gradient_home;
  }
  ExpectBroken(plan, "gradient", "rank 0, step 4, slot 'dkv_home'");
  plan = Backward();
  --ArrivalIn(plan, 1, "g1").tokens.back().end;
  ExpectBroken(plan, "gradient", "which the transfer leaves behind");
}

TEST(Checker, AReceiveInPlaceNeedsAnEmptyAccumulator) {
  Plan plan = Backward();
  ArrivalIn(plan, 2, "g1").combine = Combine::kReplace;
  ExpectBroken(plan, "overwrite", "rank 2, step 1, slot 'g1': is used while it is being received");
  // Keys at or after the query only: rank 3 passes the gradient of rank 1's keys on and adds
  // nothing.
  Spec spec = Keeping(FullMask(SmallSpec(Direction::kBackward, 4, 4)));
  spec.layout = Layout::kContiguous;
  spec.mask.window_left = 0;
  plan = PlanOf(spec);
  Transfer& relayed = ArrivalIn(plan, 3, "g1");
  EXPECT_EQ(relayed.tokens, plan.ranks[1].kv);
  relayed.combine = Combine::kReplace;
  EXPECT_TRUE(CheckPlan(plan).ok()) << CheckPlan(plan);
}

TEST(Checker, HostileSizesAreRefusedQuickly) {
  const Plan large = PlanOf(SmallSpec(Direction::kForward, 2, 2, kMaxTokens));
  Plan plan = large;
  plan.computes[0].kv = {{0, 1 << 20, 65521}};
  plan.computes[1].kv = {{0, 1 << 20, 65519}};
  ExpectBroken(plan, "complexity", "no common multiple");
  plan = large;
  plan.computes[0].kv.clear();
  for (int64_t i = 0; i < 4096; ++i) {
    plan.computes[0].kv.push_back({i * 100000, (i + 1) * 100000, 65536});
  }
  ExpectBroken(plan, "complexity", "more than 4194304 cells");
}

}  // namespace
}  // namespace annulus::ring
