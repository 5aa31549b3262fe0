// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything that the plugin asks of CUDA, so that the rest of it runs without a GPU. There are two
// drivers: runtime_driver.cc over the CUDA runtime, and an emulation in the tests. Which one is
// there is decided by what is linked.
//
// Failures: RESOURCE_EXHAUSTED for memory, INTERNAL for the rest, with the name of the CUDA call
// and CUDA's own words. Thread safe, except that one stream is used from one thread at a time.
// Only Open blocks on the device.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "kernels/cuda/kernel_table.h"
#include "kernels/cuda/tensor_map.h"

namespace annulus::kernels::cuda {

struct DeviceProperties {
  std::string name;
  int capability_major = 0;
  int capability_minor = 0;
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t shared_bytes_block = 0;  // the most that a block may opt in to
  std::string bus_id;              // "0000:3b:00.0"
};

class Driver {
 public:
  using Stream = void*;
  using Event = void*;

  virtual ~Driver() = default;

  virtual const DeviceProperties& properties() const = 0;

  // Makes the device the calling thread's current one, for a library that works on that.
  virtual absl::Status MakeCurrent() = 0;

  // At least 256-byte aligned. `bytes` >= 1.
  virtual absl::StatusOr<void*> Allocate(size_t bytes) = 0;
  virtual void Free(void* memory) = 0;

  // Each side in the host's memory or a device's. Rows and pitches as checked by the caller.
  virtual absl::Status Copy(const annulusCopyArgs& args, Stream stream) = 0;
  virtual absl::Status RegisterHost(void* memory, size_t bytes) = 0;
  virtual absl::Status UnregisterHost(void* memory) = 0;
  // See compute_plugin.h. INVALID_ARGUMENT for what is not of Allocate, no handle, not of Import.
  virtual absl::StatusOr<annulusMemoryHandle> Export(const void* memory) = 0;
  virtual absl::StatusOr<void*> Import(const annulusMemoryHandle& handle) = 0;
  virtual absl::Status Release(void* memory) = 0;

  virtual absl::StatusOr<Stream> CreateStream() = 0;
  virtual void DestroyStream(Stream stream) = 0;
  virtual absl::StatusOr<Event> CreateEvent() = 0;
  virtual void DestroyEvent(Event event) = 0;
  virtual absl::Status Record(Event event, Stream stream) = 0;
  // Whether the last recorded point is reached; a failure of the work before it is reported here.
  virtual absl::StatusOr<bool> Reached(Event event) = 0;

  virtual absl::Status Zero(void* memory, size_t bytes, Stream stream) = 0;
  // Compute capability 9.0. Touches no device: the memory need not be there yet. INVALID_ARGUMENT
  // for what cannot be mapped (CanMap).
  virtual absl::StatusOr<TensorMap> EncodeMap(const TensorMapSpec& spec) = 0;
  // `params` is copied before the call returns: ShapeOf(kernel).params_bytes of it. 1 <= blocks.
  virtual absl::Status Launch(KernelId kernel, int64_t blocks, const void* params,
                              Stream stream) = 0;
};

// INVALID_ARGUMENT: no such device. INTERNAL: no driver, or a device that does not answer.
absl::StatusOr<std::unique_ptr<Driver>> OpenDriver(int ordinal);

}  // namespace annulus::kernels::cuda
