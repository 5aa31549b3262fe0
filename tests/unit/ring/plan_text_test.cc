// SPDX-License-Identifier: Apache-2.0
#include "server/ring/plan_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/ring/plans.h"

namespace annulus::ring {
namespace {

using ::annulus::testing::FullMask;
using ::annulus::testing::Keeping;
using ::annulus::testing::PlanOf;
using ::annulus::testing::SmallSpec;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(PlanText, ShowsHopsSlotsAndSteps) {
  const std::string text = PlanToText(PlanOf(FullMask(SmallSpec(Direction::kForward, 4, 2))));
  EXPECT_THAT(text, HasSubstr("double_ring forward, 4 ranks in windows of 2, 4 steps\n"));
  EXPECT_THAT(text, HasSubstr("64 queries over 64 keys, full mask, zigzag layout\n"));
  EXPECT_THAT(text,
              HasSubstr("kv  hops of a rank: 2 inner, 1 outer; tokens moved: 128 inner, 64 outer"));
  EXPECT_THAT(text, HasSubstr("slots of rank 0 (tokens): own 16 inner0 16 outer0 16"));
  EXPECT_THAT(text, HasSubstr("   1  1   0   3   2"));
  EXPECT_THAT(text, HasSubstr("kv outer own -> outer0, due 2: 0>2 1>3 2>0 3>1"));
  EXPECT_THAT(text, Not(HasSubstr("dkv")));
}

TEST(PlanText, MarksTilesThatTheMaskCuts) {
  const std::string text = PlanToText(PlanOf(Keeping(SmallSpec(Direction::kBackward, 2, 2))));
  EXPECT_THAT(text, HasSubstr("   1  0~  1~"));
  EXPECT_THAT(text, HasSubstr("dkv hops of a rank: 1 inner, 0 outer"));
}

TEST(PlanText, LeavesTheTableOutForManyRanks) {
  const std::string text = PlanToText(PlanOf(SmallSpec(Direction::kForward, 32, 4)));
  EXPECT_THAT(text, HasSubstr("up to 16 ranks"));
  EXPECT_THAT(text, Not(HasSubstr("step  KV")));
}

}  // namespace
}  // namespace annulus::ring
