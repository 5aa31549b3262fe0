// SPDX-License-Identifier: Apache-2.0
#include "server/ring/slots.h"

#include <gtest/gtest.h>

#include "server/ring/token_ranges.h"
#include "tests/unit/ring/plans.h"

namespace annulus::ring {
namespace {

using ::annulus::testing::FullMask;
using ::annulus::testing::Keeping;
using ::annulus::testing::PlanOf;
using ::annulus::testing::SmallSpec;

TEST(Slots, ForwardHoldsWhatArrivedLast) {
  const Plan plan = PlanOf(FullMask(SmallSpec(Direction::kForward, 4, 4)));
  const SlotTable table(plan, 0);
  const size_t inner0 = table.IndexOf("inner0");
  ASSERT_NE(inner0, SlotTable::kNone);
  EXPECT_EQ(table.slots()[inner0].max_tokens, 16);
  EXPECT_EQ(table.LifeAt(inner0, 0), nullptr);
  EXPECT_EQ(table.LifeAt(inner0, 1)->rows, plan.ranks[3].kv);
  EXPECT_EQ(table.LifeAt(inner0, 2), nullptr);  // being received
  EXPECT_EQ(table.LifeAt(inner0, 3)->rows, plan.ranks[1].kv);
  EXPECT_EQ(table.LifeAt(inner0, 4)->rows, plan.ranks[1].kv);  // after the last step
  EXPECT_EQ(table.LifeAt(table.IndexOf(kOwnSlot), 4)->rows, plan.ranks[0].kv);
  EXPECT_EQ(table.IndexOf("g0"), SlotTable::kNone);
}

TEST(Slots, GradientArrivalsLandInAsFewStagingBuffersAsTheyNeed) {
  const Plan plan = PlanOf(Keeping(FullMask(SmallSpec(Direction::kBackward, 8, 4))));
  const SlotTable table(plan, 3);
  int staging = 0;
  for (const Slot& slot : table.slots()) staging += slot.name.empty();
  EXPECT_EQ(staging, 2);  // one inner hop beside one outer
  for (size_t i = 0; i < plan.transfers.size(); ++i) {
    const Transfer& transfer = plan.transfers[i];
    if (transfer.dst != 3) {
      EXPECT_EQ(table.LandingSlot(i), SlotTable::kNone);
      continue;
    }
    const Slot& landing = table.slots()[table.LandingSlot(i)];
    EXPECT_EQ(landing.name, transfer.combine == Combine::kAdd ? "" : transfer.dst_slot);
    EXPECT_GE(landing.max_tokens, TokenCount(transfer.tokens));
  }
}

TEST(Slots, StagingIsNotSharedInFlight) {
  const Plan plan = PlanOf(Keeping(FullMask(SmallSpec(Direction::kBackward, 12, 3))));
  const SlotTable table(plan, 5);
  for (size_t a = 0; a < plan.transfers.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      if (table.LandingSlot(a) == SlotTable::kNone) continue;
      if (table.LandingSlot(a) != table.LandingSlot(b)) continue;
      const Transfer& x = plan.transfers[a];
      const Transfer& y = plan.transfers[b];
      EXPECT_TRUE(x.due_step <= y.post_step || y.due_step <= x.post_step);
    }
  }
}

TEST(Slots, AccumulatorsBeginWhenTheLastSendHasEnded) {
  const Plan plan = PlanOf(Keeping(FullMask(SmallSpec(Direction::kBackward, 4, 4))));
  const SlotTable table(plan, 0);
  const Slot& g0 = table.slots()[table.IndexOf("g0")];
  ASSERT_EQ(g0.lives.size(), 2u);
  EXPECT_EQ(g0.lives[0].begin_step, 0);
  EXPECT_EQ(g0.lives[0].end_step, 2);  // computed in 0, sent over [1, 2)
  EXPECT_EQ(g0.lives[1].begin_step, 2);
  const Slot& home = table.slots()[table.IndexOf(plan.gradient_home)];
  ASSERT_EQ(home.lives.size(), 1u);
  EXPECT_EQ(home.lives[0].rows, plan.ranks[0].kv);
  EXPECT_EQ(home.lives[0].end_step, plan.steps + 1);
}

TEST(Slots, PeakCountsWhatIsAllocated) {
  const Plan forward = PlanOf(FullMask(SmallSpec(Direction::kForward, 16, 4)));
  EXPECT_EQ(PeakSlotTokens(forward, 0, Payload::kKv), 4 * 4);  // four receive slots
  EXPECT_EQ(PeakSlotTokens(forward, 0, Payload::kDkv), 0);
  const Plan backward = PlanOf(Keeping(FullMask(SmallSpec(Direction::kBackward, 16, 4))));
  // g0, g1, sum0, sum1, dkv_home and two staging buffers.
  EXPECT_EQ(PeakSlotTokens(backward, 0, Payload::kDkv), 7 * 4);
}

}  // namespace
}  // namespace annulus::ring
