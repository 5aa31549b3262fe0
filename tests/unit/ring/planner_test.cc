// SPDX-License-Identifier: Apache-2.0
#include "server/ring/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "server/ring/checker/checker.h"
#include "server/ring/digest.h"
#include "server/ring/plan_text.h"
#include "server/ring/token_ranges.h"
#include "tests/unit/ring/plans.h"

namespace annulus::ring {
namespace {

using ::annulus::testing::FullMask;
using ::annulus::testing::Keeping;
using ::annulus::testing::PlanOf;
using ::annulus::testing::SmallSpec;
using ::testing::HasSubstr;

// Hops of one block, so of one rank, under a full mask.
struct Hops {
  int ranks, window;
  int forward_inner, forward_outer;
  int backward_kv_inner, backward_kv_outer;
  int dkv_inner, dkv_outer;
};

class HopCounts : public ::testing::TestWithParam<Hops> {};

void ExpectHops(const Plan& plan, Payload payload, int inner, int outer) {
  // Under a full mask every block takes the same number of hops.
  int hops[2] = {0, 0};
  for (const Transfer& transfer : plan.transfers) {
    if (transfer.payload == payload) ++hops[static_cast<int>(transfer.level)];
  }
  EXPECT_EQ(hops[0], inner * plan.context_parallel_size);
  EXPECT_EQ(hops[1], outer * plan.context_parallel_size);
}

TEST_P(HopCounts, AreThoseOfThePaper) {
  const Hops& hops = GetParam();
  const Plan forward = PlanOf(FullMask(SmallSpec(Direction::kForward, hops.ranks, hops.window)));
  ExpectHops(forward, Payload::kKv, hops.forward_inner, hops.forward_outer);
  EXPECT_EQ(forward.steps, hops.ranks);
  const Plan backward =
      PlanOf(Keeping(FullMask(SmallSpec(Direction::kBackward, hops.ranks, hops.window))));
  ExpectHops(backward, Payload::kKv, hops.backward_kv_inner, hops.backward_kv_outer);
  ExpectHops(backward, Payload::kDkv, hops.dkv_inner, hops.dkv_outer);
  EXPECT_EQ(backward.steps, hops.ranks);
}

// n = N / w windows. Forward n (w - 1) inner, n - 1 outer; backward KV n - 2 outer; gradients as
// the forward.
INSTANTIATE_TEST_SUITE_P(Table, HopCounts,
                         ::testing::Values(Hops{1, 1, 0, 0, 0, 0, 0, 0},   //
                                           Hops{2, 2, 1, 0, 0, 0, 1, 0},   //
                                           Hops{8, 8, 7, 0, 6, 0, 7, 0},   //
                                           Hops{8, 1, 7, 0, 6, 0, 7, 0},   //
                                           Hops{8, 4, 6, 1, 6, 0, 6, 1},   //
                                           Hops{8, 2, 4, 3, 4, 2, 4, 3},   //
                                           Hops{12, 3, 8, 3, 8, 2, 8, 3},  //
                                           Hops{16, 4, 12, 3, 12, 2, 12, 3}));

TEST(Planner, OuterHopsHaveAWholeWindowToHideUnder) {
  const Plan plan = PlanOf(Keeping(FullMask(SmallSpec(Direction::kBackward, 16, 4))));
  for (const Transfer& transfer : plan.transfers) {
    EXPECT_EQ(transfer.due_step - transfer.post_step, transfer.level == Level::kOuter ? 4 : 1);
  }
}

TEST(Planner, ForwardNeedsFourReceiveSlotsAtMost) {
  const Plan plan = PlanOf(FullMask(SmallSpec(Direction::kForward, 16, 4)));
  std::map<int, std::set<std::string>> slots;
  for (const Transfer& transfer : plan.transfers) slots[transfer.dst].insert(transfer.dst_slot);
  for (const auto& [rank, names] : slots) EXPECT_LE(names.size(), 4u) << "rank " << rank;
}

TEST(Planner, BackwardFetchesWhatWasNotKept) {
  const Plan plan = PlanOf(SmallSpec(Direction::kBackward, 8, 4));
  EXPECT_EQ(plan.steps, 9);
  EXPECT_TRUE(plan.resident.empty());
  for (const Compute& compute : plan.computes) EXPECT_GE(compute.step, 1);
  int fetches = 0;
  for (const Transfer& transfer : plan.transfers) {
    if (transfer.post_step != 0) continue;
    ++fetches;
    EXPECT_EQ(transfer.src_slot, kOwnSlot);
    EXPECT_EQ(transfer.dst_slot, "res");
    EXPECT_EQ(transfer.due_step, 1);
  }
  EXPECT_EQ(fetches, 8);
}

TEST(Planner, ZigzagStepsAreOneFullComputeBesideTheRanksOwn) {
  const Plan plan = PlanOf(SmallSpec(Direction::kForward, 8, 4));
  std::map<std::pair<int, int>, int> computes;
  for (const Compute& compute : plan.computes) {
    ++computes[{compute.step, compute.rank}];
    EXPECT_EQ(compute.mask_case == MaskCase::kPartial,
              compute.step == 0 && compute.q == compute.kv);
  }
  for (const auto& [at, count] : computes) {
    // The last rank's two chunks adjoin: one tile.
    EXPECT_EQ(count, at.first == 0 && at.second != 7 ? 3 : 1);
  }
}

TEST(Planner, ContiguousCausalMovesAndComputesOnlyWhatLaterRanksSee) {
  Spec spec = SmallSpec(Direction::kForward, 4, 4);
  spec.layout = Layout::kContiguous;
  const Plan plan = PlanOf(spec);
  EXPECT_EQ(plan.computes.size(), 10u);  // 4 * 5 / 2 tiles
  // Owner o's block goes to ranks o + 1 .. 3 and no further.
  EXPECT_EQ(plan.transfers.size(), 6u);
  for (const Transfer& transfer : plan.transfers) EXPECT_EQ(transfer.dst, transfer.src + 1);
}

TEST(Planner, SlidingWindowStopsEarly) {
  Spec spec = SmallSpec(Direction::kForward, 8, 8);
  spec.layout = Layout::kContiguous;
  spec.mask.window_left = 8;  // one chunk: a rank sees its own and its left neighbour's
  const Plan plan = PlanOf(spec);
  EXPECT_EQ(plan.transfers.size(), 7u);
  EXPECT_EQ(plan.computes.size(), 15u);
}

TEST(Planner, ResidentIsWhatTheBackwardStartsFrom) {
  for (const Layout layout : {Layout::kContiguous, Layout::kZigzag, Layout::kStriped}) {
    for (const int window : {1, 2, 4, 8}) {
      Spec spec = Keeping(SmallSpec(Direction::kForward, 8, window));
      spec.layout = layout;
      const Plan forward = PlanOf(spec);
      spec.direction = Direction::kBackward;
      const Plan backward = PlanOf(spec);
      ASSERT_EQ(forward.resident.size(), backward.resident.size());
      EXPECT_FALSE(forward.resident.empty());
      for (size_t i = 0; i < forward.resident.size(); ++i) {
        EXPECT_EQ(forward.resident[i].rank, backward.resident[i].rank);
        EXPECT_EQ(forward.resident[i].kv, backward.resident[i].kv);
      }
    }
  }
}

TEST(Planner, SameSpecSamePlanSameDigest) {
  const Spec spec = SmallSpec(Direction::kBackward, 8, 4);
  const Plan plan = PlanOf(spec);
  EXPECT_EQ(plan, PlanOf(spec));
  EXPECT_EQ(plan.digest, PlanDigest(plan));
  EXPECT_EQ(plan.digest.size(), 64u);
  EXPECT_NE(plan.digest, PlanOf(Keeping(spec)).digest);
}

TEST(Planner, Sha256OfAKnownText) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Planner, LargestLengthsArePlannedAndChecked) {
  for (const Layout layout : {Layout::kContiguous, Layout::kZigzag, Layout::kStriped}) {
    Spec spec = SmallSpec(Direction::kForward, 8, 2, kMaxTokens);
    spec.layout = layout;
    EXPECT_TRUE(CheckPlan(PlanOf(spec)).ok()) << CheckPlan(PlanOf(spec));
  }
}

TEST(Planner, AMillionTokensOnSixtyFourRanks) {
  for (const Layout layout : {Layout::kZigzag, Layout::kStriped}) {
    Spec spec = Keeping(SmallSpec(Direction::kBackward, 64, 8, 1 << 20));
    spec.layout = layout;
    EXPECT_TRUE(CheckPlan(PlanOf(spec)).ok());
  }
}

void ExpectRefused(const Spec& spec, const std::string& reason) {
  const auto plan = MakePlan(spec);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr(reason));
}

TEST(Planner, RefusesWithTheReason) {
  ExpectRefused(
      SmallSpec(Direction::kForward, 12, 5),
      "window_size must divide context_parallel_size 12: one of 1, 2, 3, 4, 6, 12; got 5");
  ExpectRefused(SmallSpec(Direction::kForward, 4, 8), "one of 1, 2, 4; got 8");
  ExpectRefused(SmallSpec(Direction::kForward, 4, -1), "got -1");
  ExpectRefused(SmallSpec(Direction::kForward, 0, 0),
                "context_parallel_size must be 1..4096, got 0");
  ExpectRefused(SmallSpec(Direction::kForward, 4097, 1), "got 4097");
  ExpectRefused(SmallSpec(Direction::kForward, 4096, 1), "16777216 tiles");
  ExpectRefused(SmallSpec(Direction::kForward, 2, 2, 0),
                "query_length must be 1..1099511627776, got 0");
  Spec spec = SmallSpec(Direction::kForward, 2, 2);
  spec.kv_length = kMaxTokens + 1;
  ExpectRefused(spec, "kv_length must be 1..1099511627776");
  spec = SmallSpec(Direction::kForward, 2, 2);
  spec.mask.window_left = -2;
  ExpectRefused(spec, "mask.window_left must be -1..");
}

}  // namespace
}  // namespace annulus::ring
