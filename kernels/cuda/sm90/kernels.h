// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cuda/kernel_table.h"

namespace annulus::kernels::cuda {

// The address of a kernel of sm90/, as cudaLaunchKernel takes it; null for others.
const void* HopperFunction(KernelId id);

}  // namespace annulus::kernels::cuda
