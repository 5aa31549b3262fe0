// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "server/ring/plan.h"
#include "tests/property/ring/random_spec.h"

namespace annulus::testing {

// One random fault put into the plan: an operation dropped, duplicated, shifted in time, misrouted,
// given another slot or other tokens. The words for it, or nothing if the draw left the plan as it
// was.
std::optional<std::string> Mutate(Random& random, ring::Plan* plan);

}  // namespace annulus::testing
