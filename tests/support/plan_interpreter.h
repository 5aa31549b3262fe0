// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/plan.h"

// Executes plans in memory, in float64 and without a thread, against a wire that does its worst
// within what a plan allows: each transfer reads its source when posted or only when due, and fills
// its destination when posted or only when due (until then it holds NaN). A plan that is right
// gives the right answer whatever is drawn.
namespace annulus::testing {

// One head of `dim` elements; q, d_o: [query_length, dim]; k, v: [kv_length, dim].
struct AttentionInput {
  int64_t query_length = 0;
  int64_t kv_length = 0;
  int dim = 2;
  std::vector<double> q, k, v, d_o;
};
AttentionInput RandomInput(int64_t query_length, int64_t kv_length, uint64_t seed);

// Same shapes; a query that sees nothing has o = 0 and lse = -inf.
struct AttentionResult {
  std::vector<double> o, lse, dq, dk, dv;
};

// The definition, pair by pair, forward and backward.
AttentionResult DirectAttention(const ring::Mask& mask, const AttentionInput& input);

// K and V rows that a forward left in its resident slots, by rank: 2 * dim elements a row.
using ResidentRows = std::map<int, std::vector<double>>;

// Runs a forward plan; fills o and lse, and `resident` if not null. Errors where the plan leads to
// rows that are not there.
absl::StatusOr<AttentionResult> RunForward(const ring::Plan& plan, const AttentionInput& input,
                                           uint64_t timing_seed, ResidentRows* resident);

// Runs a backward plan from the final o and lse; fills dq, dk, dv. `resident` may be null: then the
// plan's resident slots are filled from the input.
absl::StatusOr<AttentionResult> RunBackward(const ring::Plan& plan, const AttentionInput& input,
                                            const AttentionResult& forward, uint64_t timing_seed,
                                            const ResidentRows* resident);

// Whether all elements agree to 1e-9, infinities included. Empty vectors are skipped.
bool Agree(const AttentionResult& got, const AttentionResult& expected);

}  // namespace annulus::testing
