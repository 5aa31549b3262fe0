// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "server/ring/plan.h"

// From tokens of the sequence to rows of tensors. A tensor's token list says which token each of
// its rows holds, in order; a whole sequence used in place is [0, length).
namespace annulus::worker {

// Bounds on what a caller may send, so that no reference costs unbounded time.
inline constexpr size_t kTokenRangesMax = 4096;
inline constexpr size_t kRowRunsMax = 65536;
inline constexpr int64_t kTokensMax = int64_t{1} << 40;

// OK when every range has 0 <= begin <= end <= kTokensMax and a stride in [1, kTokensMax], there
// are at most kTokenRangesMax of them and they count `rows` tokens. INVALID_ARGUMENT else.
absl::Status CheckTokens(const ring::TokenRanges& tokens, int64_t rows);

// Rows row, row + row_step, ... (count of them) of one tensor.
struct Rows {
  int64_t row = 0;
  int64_t row_step = 1;
};

// `count` tokens position, position + stride, ... and where up to five tensors hold them.
inline constexpr size_t kJointTensorsMax = 5;
struct RowRun {
  int64_t count = 0;
  int64_t position = 0;
  int64_t stride = 1;
  std::array<Rows, kJointTensorsMax> in{};
};

// The tokens of `wanted`, in their order, cut into runs that are evenly spaced in each of
// `layouts` (the token lists of at most kJointTensorsMax tensors). A run of one token has
// row_step 1. INVALID_ARGUMENT names the first token that a layout lacks; RESOURCE_EXHAUSTED if
// more than kRowRunsMax runs come out.
absl::StatusOr<std::vector<RowRun>> LocateRuns(const ring::TokenRanges& wanted,
                                               std::span<const ring::TokenRanges* const> layouts);

// Runs that one kernel call can serve: tensor t is seen through a view that starts at its row
// view[t].row and takes every view[t].row_step-th row; the spans name rows of all these views.
struct RunGroup {
  std::array<Rows, kJointTensorsMax> view{};
  int64_t rows = 0;  // of each view
  std::vector<annulusSpan> spans;
};
// Joins runs whose rows differ by the same number of view rows in each of the `tensors` layouts.
std::vector<RunGroup> GroupRuns(const std::vector<RowRun>& runs, size_t tensors);

}  // namespace annulus::worker
