// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything that the transport asks of CUDA. As with NCCL there are two: runtime_cuda.cc over the
// CUDA runtime, and a model in the tests.
//
// Failures: RESOURCE_EXHAUSTED for memory, INTERNAL for the rest, with the call's name and CUDA's
// words. Thread safe, except that one stream is used from one thread at a time.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace annulus::transport::nccl {

class CudaApi {
 public:
  using Stream = void*;
  using Event = void*;

  virtual ~CudaApi() = default;

  // What two ranks are told apart by in words: "NVIDIA H100, driver 13000".
  virtual std::string device_words() const = 0;
  virtual int driver_version() const = 0;

  // Makes the device current on the calling thread. First call of every thread.
  virtual absl::Status Enter() = 0;

  // Of the highest priority that the device has, not synchronised with the default stream.
  virtual absl::StatusOr<Stream> CreateStream() = 0;
  virtual void DestroyStream(Stream stream) = 0;
  virtual absl::StatusOr<Event> CreateEvent() = 0;
  virtual void DestroyEvent(Event event) = 0;
  virtual absl::Status Record(Event event, Stream stream) = 0;
  // Whether the recorded point is reached; a failure of the work before it is reported here.
  virtual absl::StatusOr<bool> Reached(Event event) = 0;
  // From one reached event to the other.
  virtual absl::StatusOr<int64_t> ElapsedNs(Event from, Event to) = 0;

  virtual absl::StatusOr<void*> Allocate(size_t bytes) = 0;
  virtual void Free(void* memory) = 0;
  // Ordered after what is on the stream; `host` must live until that is reached.
  virtual absl::Status CopyIn(void* memory, const void* host, size_t bytes, Stream stream) = 0;
  virtual absl::Status CopyOut(void* host, const void* memory, size_t bytes, Stream stream) = 0;
};

// INVALID_ARGUMENT: no such device. INTERNAL: no driver, or a device that does not answer.
absl::StatusOr<std::shared_ptr<CudaApi>> OpenCuda(int ordinal);

}  // namespace annulus::transport::nccl
