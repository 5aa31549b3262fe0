// SPDX-License-Identifier: Apache-2.0
#pragma once

// The table of the CUDA device, without the library around it. What it opens is what OpenDriver
// (kernels/cuda/driver.h) gives: this code names no CUDA.

#include "kernels/compute_plugin.h"

namespace annulus::kernels {

// Static storage; every entry is set.
const annulusComputeV1* CudaPlugin();

}  // namespace annulus::kernels
