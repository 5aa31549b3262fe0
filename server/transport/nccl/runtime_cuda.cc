// SPDX-License-Identifier: Apache-2.0
// CUDA, over its runtime. That is linked in statically and opens libcuda when it is first called:
// on a machine without a GPU the plugin loads, and OpenCuda says what is missing.
#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/transport/nccl/cuda_api.h"

namespace annulus::transport::nccl {
namespace {

absl::Status ToStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat(call, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  cudaGetLastError();  // a failed call is told once; one that broke the device comes again
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  if (error == cudaErrorInvalidDevice) return absl::InvalidArgumentError(text);
  return absl::InternalError(text);
}

cudaStream_t ToStream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t ToEvent(void* event) { return static_cast<cudaEvent_t>(event); }

class RuntimeCuda final : public CudaApi {
 public:
  explicit RuntimeCuda(int ordinal) : ordinal_(ordinal) {}

  absl::Status Query() {
    int count = 0;
    ANNULUS_RETURN_IF_ERROR(ToStatus(cudaGetDeviceCount(&count), "cudaGetDeviceCount"));
    if (ordinal_ >= count) {
      return absl::InvalidArgumentError(
          absl::StrCat("device_ordinal ", ordinal_, ", this machine has ", count, " CUDA devices"));
    }
    cudaDeviceProp found = {};
    ANNULUS_RETURN_IF_ERROR(
        ToStatus(cudaGetDeviceProperties(&found, ordinal_), "cudaGetDeviceProperties"));
    ANNULUS_RETURN_IF_ERROR(
        ToStatus(cudaDriverGetVersion(&driver_version_), "cudaDriverGetVersion"));
    device_words_ = found.name;
    return absl::OkStatus();
  }

  std::string device_words() const override { return device_words_; }
  int driver_version() const override { return driver_version_; }

  absl::Status Enter() override { return ToStatus(cudaSetDevice(ordinal_), "cudaSetDevice"); }

  absl::StatusOr<Stream> CreateStream() override {
    int lowest = 0;
    int highest = 0;
    ANNULUS_RETURN_IF_ERROR(ToStatus(cudaDeviceGetStreamPriorityRange(&lowest, &highest),
                                     "cudaDeviceGetStreamPriorityRange"));
    cudaStream_t stream = nullptr;
    ANNULUS_RETURN_IF_ERROR(
        ToStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, highest),
                 "cudaStreamCreateWithPriority"));
    return stream;
  }
  void DestroyStream(Stream stream) override { cudaStreamDestroy(ToStream(stream)); }

  absl::StatusOr<Event> CreateEvent() override {
    cudaEvent_t event = nullptr;
    ANNULUS_RETURN_IF_ERROR(ToStatus(cudaEventCreate(&event), "cudaEventCreate"));
    return event;
  }
  void DestroyEvent(Event event) override { cudaEventDestroy(ToEvent(event)); }
  absl::Status Record(Event event, Stream stream) override {
    return ToStatus(cudaEventRecord(ToEvent(event), ToStream(stream)), "cudaEventRecord");
  }
  absl::StatusOr<bool> Reached(Event event) override {
    const cudaError_t answer = cudaEventQuery(ToEvent(event));
    if (answer == cudaErrorNotReady) return false;
    ANNULUS_RETURN_IF_ERROR(ToStatus(answer, "cudaEventQuery"));
    return true;
  }
  absl::StatusOr<int64_t> ElapsedNs(Event from, Event to) override {
    float milliseconds = 0;
    ANNULUS_RETURN_IF_ERROR(ToStatus(
        cudaEventElapsedTime(&milliseconds, ToEvent(from), ToEvent(to)), "cudaEventElapsedTime"));
    return static_cast<int64_t>(double{milliseconds} * 1e6);
  }

  absl::StatusOr<void*> Allocate(size_t bytes) override {
    void* memory = nullptr;
    ANNULUS_RETURN_IF_ERROR(ToStatus(cudaMalloc(&memory, bytes), "cudaMalloc"));
    return memory;
  }
  void Free(void* memory) override { cudaFree(memory); }
  absl::Status CopyIn(void* memory, const void* host, size_t bytes, Stream stream) override {
    return ToStatus(cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, ToStream(stream)),
                    "cudaMemcpyAsync");
  }
  absl::Status CopyOut(void* host, const void* memory, size_t bytes, Stream stream) override {
    return ToStatus(cudaMemcpyAsync(host, memory, bytes, cudaMemcpyDeviceToHost, ToStream(stream)),
                    "cudaMemcpyAsync");
  }

 private:
  const int ordinal_;
  int driver_version_ = 0;
  std::string device_words_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<CudaApi>> OpenCuda(int ordinal) {
  auto cuda = std::make_shared<RuntimeCuda>(ordinal);
  ANNULUS_RETURN_IF_ERROR(cuda->Query());
  return cuda;
}

}  // namespace annulus::transport::nccl
