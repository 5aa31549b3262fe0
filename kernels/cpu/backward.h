// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/compute_plugin.h"
#include "kernels/cpu/workspace.h"

namespace annulus::kernels::cpu {

// `attend_backward` of compute_plugin.h over validated arguments. dq, dk and dv are added to in an
// order that depends on the shape alone, not on the number of threads. Throws std::bad_alloc.
void AttendBackward(const annulusAttendBackwardArgs& args, Workspace* workspace);

}  // namespace annulus::kernels::cpu
