// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/compute_plugin.h"
#include "kernels/cpu/workspace.h"

namespace annulus::kernels::cpu {

// Whether the forward pass of these arguments is one for AttendFewRows.
bool HasFewRows(const annulusAttendArgs& args);

// `attend` of compute_plugin.h for few query rows against any number of keys: the keys are split
// over the threads and the parts merged, always the same parts in the same order (flash-decoding).
// Arguments are validated; HasFewRows. Throws std::bad_alloc.
void AttendFewRows(const annulusAttendArgs& args, Workspace* workspace);

}  // namespace annulus::kernels::cpu
