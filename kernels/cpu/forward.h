// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/compute_plugin.h"
#include "kernels/cpu/workspace.h"

namespace annulus::kernels::cpu {

// `attend` of compute_plugin.h over validated arguments. FlashAttention-2's loop order (arXiv
// 2307.08691): parallel over query blocks, sequential over key tiles; o and lse are merged in
// place. The result does not depend on the number of threads. Throws std::bad_alloc.
void Attend(const annulusAttendArgs& args, Workspace* workspace);

}  // namespace annulus::kernels::cpu
