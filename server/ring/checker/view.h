// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ring/checker/token_sets.h"
#include "server/ring/plan.h"

namespace annulus::ring {

// Everything that touches one slot of one rank, as indices into the plan.
struct SlotUses {
  std::vector<size_t> attends;      // computes that read it
  std::vector<size_t> accumulates;  // computes that add to it
  std::vector<size_t> departures;   // transfers that read it
  std::vector<size_t> arrivals;     // transfers that write it
  std::vector<size_t> residents;
};

// A plan of good shape, seen the way the rules want it. Refers to the plan.
struct PlanView {
  const Plan& plan;
  TokenSets queries;
  TokenSets keys;
  // Sets in `queries` or `keys`, by index in the plan.
  std::vector<int> rank_q, compute_q;
  std::vector<int> rank_kv, resident_kv, compute_kv, transfer_tokens;
  std::map<std::pair<int, absl::string_view>, SlotUses> slots;  // by rank and name
};

// Sizes, names, steps and ranges of the plan: what the other rules take for granted.
absl::Status CheckShape(const Plan& plan);

// Needs CheckShape.
absl::StatusOr<PlanView> MakePlanView(const Plan& plan);

// The rules, each over one aspect; see checker.h.
absl::Status CheckOwnership(const PlanView& view);
absl::Status CheckCoverage(const PlanView& view);
absl::Status CheckKvSlots(const PlanView& view);
absl::Status CheckGradients(const PlanView& view);

}  // namespace annulus::ring
