// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include "server/ring/planner.h"

namespace annulus::testing {

// A causal zigzag spec over `length` tokens, to start from.
inline ring::Spec SmallSpec(ring::Direction direction, int ranks, int window, int64_t length = 64) {
  ring::Spec spec;
  spec.direction = direction;
  spec.query_length = spec.kv_length = length;
  spec.context_parallel_size = ranks;
  spec.window_size = window;
  spec.mask.kind = ring::MaskKind::kCausal;
  return spec;
}

inline ring::Spec FullMask(ring::Spec spec) {
  spec.mask.kind = ring::MaskKind::kFull;
  return spec;
}

inline ring::Spec Keeping(ring::Spec spec) {
  spec.keep_resident = true;
  return spec;
}

inline ring::Plan PlanOf(const ring::Spec& spec) {
  auto plan = ring::MakePlan(spec);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *plan : ring::Plan{};
}

}  // namespace annulus::testing
