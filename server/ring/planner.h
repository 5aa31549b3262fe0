// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/ring/plan.h"

namespace annulus::ring {

// InvalidArgument, with what was expected and what was got: lengths outside 1..2^40, a size
// outside 1..4096, a window that does not divide it (the divisors are listed), a window_left below
// -1, or more tiles than a plan may hold (plan_limits.h).
absl::Status ValidateSpec(const Spec& spec);

// The plan of a spec, with its digest: the same spec gives the same plan. Windows of 1 and N make a
// plain ring. The plan has not been checked: see checker/checker.h.
absl::StatusOr<Plan> MakePlan(const Spec& spec);

}  // namespace annulus::ring
