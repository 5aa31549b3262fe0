// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"

namespace annulus::kernels::cuda {

// OK, RESOURCE_EXHAUSTED for memory, INVALID_ARGUMENT for a device or handle that is none, INTERNAL
// for the rest; with the name of the call and CUDA's own words. Clears the thread's last error.
absl::Status ToStatus(cudaError_t error, const char* call);

}  // namespace annulus::kernels::cuda
