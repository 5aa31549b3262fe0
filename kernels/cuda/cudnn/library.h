// SPDX-License-Identifier: Apache-2.0
#pragma once

// libcudnn.so.9 as it is found at run time, and its backend descriptors. Nothing links it.

#include <cudnn_graph.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/cudnn/cudnn_api.h"

namespace annulus::kernels::cuda {

// "9.19.0" of 91900.
std::string VersionText(size_t version);

// The functions that are used. Loaded once and never unloaded: cuDNN keeps threads and kernels.
struct CudnnLibrary {
  size_t (*GetVersion)();
  const char* (*GetErrorString)(cudnnStatus_t);
  void (*GetLastErrorString)(char*, size_t);
  cudnnStatus_t (*Create)(cudnnHandle_t*);
  cudnnStatus_t (*Destroy)(cudnnHandle_t);
  cudnnStatus_t (*SetStream)(cudnnHandle_t, cudaStream_t);
  cudnnStatus_t (*BackendCreateDescriptor)(cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t*);
  cudnnStatus_t (*BackendDestroyDescriptor)(cudnnBackendDescriptor_t);
  cudnnStatus_t (*BackendFinalize)(cudnnBackendDescriptor_t);
  cudnnStatus_t (*BackendSetAttribute)(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
                                       cudnnBackendAttributeType_t, int64_t, const void*);
  cudnnStatus_t (*BackendGetAttribute)(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
                                       cudnnBackendAttributeType_t, int64_t, int64_t*, void*);
  cudnnStatus_t (*BackendExecute)(cudnnHandle_t, cudnnBackendDescriptor_t,
                                  cudnnBackendDescriptor_t);

  // OK, or `what` with cuDNN's name of the status and its reason: INVALID_ARGUMENT for what is not
  // supported, INTERNAL for the rest.
  absl::Status ToStatus(cudnnStatus_t status, absl::string_view what) const;
};

// INVALID_ARGUMENT: no such library, an entry is missing, or older than kCudnnVersionMin. `file` is
// what dlopen is given.
absl::StatusOr<CudnnLibrary> LoadCudnn(const char* file = "libcudnn.so.9");

// Plans for a device that need not be there, from cuDNN's description of it: they can be built,
// which tells that cuDNN has a kernel, and not run.
absl::StatusOr<std::unique_ptr<CudnnApi>> OpenCudnnFor(const std::string& device_json);

}  // namespace annulus::kernels::cuda
