// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runtime_status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace annulus::kernels::cuda {

absl::Status ToStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat(call, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  cudaGetLastError();  // a failed call is told once; one that broke the device comes again
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  if (error == cudaErrorInvalidDevice || error == cudaErrorInvalidResourceHandle) {
    return absl::InvalidArgumentError(text);
  }
  return absl::InternalError(text);
}

}  // namespace annulus::kernels::cuda
