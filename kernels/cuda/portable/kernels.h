// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cuda/kernel_table.h"

namespace annulus::kernels::cuda {

// What cudaLaunchKernel takes: the host's handle of the kernel.
const void* KernelFunction(KernelId id);

}  // namespace annulus::kernels::cuda
