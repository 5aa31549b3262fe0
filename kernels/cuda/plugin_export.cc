// SPDX-License-Identifier: Apache-2.0
// The one symbol of libannulus-compute-cuda.so. Filled when the library is loaded.
#include "kernels/cuda/cuda_plugin.h"

extern "C" __attribute__((visibility("default"))) const annulusComputeV1 annulusCompute_v1;
const annulusComputeV1 annulusCompute_v1 = *annulus::kernels::CudaPlugin();
