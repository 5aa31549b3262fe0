// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {

struct Manner {
  bool overlap = true;
  bool resident = true;
  bool bf16_wire = false;
};

ring::Plan PlanOf(const Problem& problem, ring::Direction direction, bool keep_resident);

// One forward and its backward, checked against the gates; and that copies between the host's
// memory and the device's are on the timeline where there are two memories, and nowhere else.
void RunBoth(TestRing& ring, const Problem& problem, const Manner& run, const std::string& id);

// Runs every window, layout and mask on a ring; the other choices rotate so that each meets each.
// Only every `stride`-th of them, from the first on. Stops at the first that fails.
void RunEveryKind(TestRing& ring, int stride = 1);

}  // namespace annulus::worker::testing
