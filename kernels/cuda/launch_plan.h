// SPDX-License-Identifier: Apache-2.0
#pragma once

// From a call's arguments to launches: which kernel, how many blocks, which segments. Pure.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/kernel_table.h"

namespace annulus::kernels::cuda {

template <typename Params>
struct PlannedLaunch {
  KernelId kernel;
  int64_t blocks;
  Params params;
};

// The non-empty spans, in order, in lists of at most kSegmentsMax.
std::vector<SegmentList> SegmentLists(const annulusSpan* spans, size_t count, int tile_rows);

// Arguments are valid (kernels/validate.h). The launches of a plan run in order on one stream; none
// when there is nothing to do. INVALID_ARGUMENT for more blocks than a grid has.
absl::StatusOr<std::vector<PlannedLaunch<AttendParams>>> PlanAttend(const annulusAttendArgs& args);
absl::StatusOr<std::vector<PlannedLaunch<BackwardParams>>> PlanAttendBackward(
    const annulusAttendBackwardArgs& args);

// Blocks of a row operation over all rows of the tensor, or of Accumulate over `count` elements.
absl::StatusOr<int64_t> BlocksForRows(const annulusTensor& tensor);
absl::StatusOr<int64_t> BlocksForElements(int64_t count);

}  // namespace annulus::kernels::cuda
