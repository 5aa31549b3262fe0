// SPDX-License-Identifier: Apache-2.0
// Whole rings, forward and backward, against the float64 reference.

#include <gtest/gtest.h>

#include "tests/unit/worker/run_both.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

class RingTest : public ::testing::TestWithParam<int> {};

TEST_P(RingTest, MatchesTheReference) {
  TestRing ring({.size = GetParam()});
  RunEveryKind(ring);
}

INSTANTIATE_TEST_SUITE_P(Sizes, RingTest, ::testing::Values(1, 2, 3, 4, 6, 8));

}  // namespace
}  // namespace annulus::worker::testing
