// SPDX-License-Identifier: Apache-2.0
#include "server/ring/planner.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "server/base/status_macros.h"
#include "server/ring/digest.h"
#include "server/ring/generators/double_ring.h"
#include "server/ring/generators/ring.h"
#include "server/ring/plan_limits.h"
#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

absl::Status CheckBetween(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " must be ", low, "..", high, ", got ", value));
}

std::string Divisors(int number) {
  std::vector<int> divisors;
  for (int candidate = 1; candidate <= number; ++candidate) {
    if (number % candidate == 0) divisors.push_back(candidate);
  }
  return absl::StrJoin(divisors, ", ");
}

}  // namespace

absl::Status ValidateSpec(const Spec& spec) {
  const int n = spec.context_parallel_size;
  ANNULUS_RETURN_IF_ERROR(CheckBetween("query_length", spec.query_length, 1, kMaxTokens));
  ANNULUS_RETURN_IF_ERROR(CheckBetween("kv_length", spec.kv_length, 1, kMaxTokens));
  ANNULUS_RETURN_IF_ERROR(CheckBetween("context_parallel_size", n, 1, kMaxRanks));
  ANNULUS_RETURN_IF_ERROR(CheckBetween("mask.window_left", spec.mask.window_left, -1, kMaxTokens));
  if (spec.window_size < 0 || spec.window_size > n ||
      (spec.window_size > 0 && n % spec.window_size != 0)) {
    return absl::InvalidArgumentError(absl::StrCat("window_size must divide context_parallel_size ",
                                                   n, ": one of ", Divisors(n), "; got ",
                                                   spec.window_size));
  }
  if (int64_t{n} * n > kMaxPlannedTiles) {
    return absl::InvalidArgumentError(absl::StrCat("context_parallel_size ", n, " makes ",
                                                   int64_t{n} * n, " tiles; a plan holds at most ",
                                                   kMaxPlannedTiles));
  }
  return absl::OkStatus();
}

absl::StatusOr<Plan> MakePlan(const Spec& spec) {
  ANNULUS_RETURN_IF_ERROR(ValidateSpec(spec));
  const bool forward = spec.direction == Direction::kForward;
  const bool plain = spec.window_size <= 1 || spec.window_size == spec.context_parallel_size;
  Plan plan;
  if (plain) {
    plan = forward ? RingForward(spec) : RingBackward(spec);
  } else {
    plan = forward ? DoubleRingForward(spec) : DoubleRingBackward(spec);
  }
  plan.digest = PlanDigest(plan);
  return plan;
}

}  // namespace annulus::ring
