// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "kernels/cuda/virtual_memory.h"

namespace annulus::kernels::cuda {

// The memory of one device: allocated here or by another process. Blocks are virtual memory in
// whole granules, which is told of by descriptor, however small they are: a transport may be able
// to register that kind alone, and ranks must not differ in it. Where there is none they are
// cudaMalloc's, told of by IPC handle. The device must be the thread's current one. Thread safe.
class DeviceMemory {
 public:
  explicit DeviceMemory(int ordinal) : virtual_(VirtualMemory::Open(ordinal)) {}

  absl::StatusOr<void*> Allocate(size_t bytes);
  // Waits for what may still use it, as cudaFree does.
  void Free(void* memory);
  absl::StatusOr<annulusMemoryHandle> Export(const void* memory) const;
  absl::StatusOr<void*> Import(const annulusMemoryHandle& handle);
  absl::Status Release(void* memory);

 private:
  struct Owned {
    size_t bytes = 0;
    VirtualMemory::Block block;  // address 0: cudaMalloc's
  };
  struct Imported {
    void* ipc_base = nullptr;
    VirtualMemory::Block block;  // of a descriptor, where ipc_base is null
  };

  const std::unique_ptr<VirtualMemory> virtual_;  // null: the device has none
  mutable std::mutex mutex_;
  std::map<const void*, Owned> owned_;  // guarded by mutex_
  // Guarded by mutex_. CUDA gives one address to a handle that is opened more than once.
  std::multimap<const void*, Imported> imported_;
};

}  // namespace annulus::kernels::cuda
