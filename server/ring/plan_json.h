// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ring/plan.h"
#include "server/ring/plan_limits.h"

// Plans as JSON, schema "annulus.plan.v1": the fields of plan.h under their own names but for
// mask_case, which is "case"; enumerators as names.h has them; a range as [begin, end], or [begin,
// end, stride] where the stride is not 1. Pure functions, thread-safe.
namespace annulus::ring {

inline constexpr char kPlanSchema[] = "annulus.plan.v1";

// One line, fixed key order, no spaces; `into` and `gradient_home` only in a backward; without
// `digest`.
std::string CanonicalPlanJson(const Plan& plan);

// The canonical JSON with the digest as the second key.
std::string PlanToJson(const Plan& plan);

struct PlanJsonOptions {
  size_t max_bytes = kMaxJsonBytes;
  // Refuse a plan whose digest is missing or is not that of its content. When false the digest is
  // taken as it stands, "" if missing.
  bool verify_digest = true;
};

// Bounded in size, depth and counts (plan_limits.h); never throws. InvalidArgument names the field
// and what was expected: malformed text, a field that is unknown, missing, given twice or of the
// wrong kind, a number out of range, or a wrong digest. A plan that parses has still to be checked.
absl::StatusOr<Plan> ParsePlanJson(absl::string_view text, const PlanJsonOptions& options = {});

}  // namespace annulus::ring
