// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/runtime_status.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {

static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(annulusMemoryHandle::ipc));

absl::StatusOr<void*> DeviceMemory::Allocate(size_t bytes) {
  void* memory = nullptr;
  Owned owned{bytes, {}};
  if (virtual_ != nullptr && bytes > 0) {
    ANNULUS_ASSIGN_OR_RETURN(owned.block, virtual_->Create(bytes));
    owned.bytes = owned.block.bytes;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): to the driver an address is a number
    memory = reinterpret_cast<void*>(owned.block.address);
  } else {
    ANNULUS_RETURN_IF_ERROR(ToStatus(cudaMalloc(&memory, bytes), "cudaMalloc"));
  }
  std::lock_guard lock(mutex_);
  owned_[memory] = owned;
  return memory;
}

void DeviceMemory::Free(void* memory) {
  Owned owned;
  {
    std::lock_guard lock(mutex_);
    const auto it = owned_.find(memory);
    if (it == owned_.end()) return;
    owned = it->second;
    owned_.erase(it);
  }
  if (owned.block.address == 0) {
    cudaFree(memory);
    return;
  }
  cudaDeviceSynchronize();  // unmapping does not wait for kernels
  virtual_->Destroy(owned.block);
}

absl::StatusOr<annulusMemoryHandle> DeviceMemory::Export(const void* memory) const {
  std::lock_guard lock(mutex_);
  auto it = owned_.upper_bound(memory);
  const auto* address = static_cast<const uint8_t*>(memory);
  const bool found = it != owned_.begin() &&
                     address < static_cast<const uint8_t*>((--it)->first) + it->second.bytes;
  if (!found) return absl::InvalidArgumentError("the memory was not allocated on this device");
  const Owned& owned = it->second;
  annulusMemoryHandle handle{};
  handle.struct_size = sizeof(handle);
  handle.descriptor = -1;
  handle.bytes = owned.bytes;
  handle.offset = static_cast<size_t>(address - static_cast<const uint8_t*>(it->first));
  if (owned.block.address != 0) {
    handle.kind = ANNULUS_MEMORY_DESCRIPTOR;
    ANNULUS_ASSIGN_OR_RETURN(handle.descriptor, virtual_->Export(owned.block));
    return handle;
  }
  handle.kind = ANNULUS_MEMORY_CUDA_IPC;
  cudaIpcMemHandle_t ipc;
  ANNULUS_RETURN_IF_ERROR(
      ToStatus(cudaIpcGetMemHandle(&ipc, const_cast<void*>(it->first)), "cudaIpcGetMemHandle"));
  std::memcpy(handle.ipc, &ipc, sizeof(ipc));
  return handle;
}

absl::StatusOr<void*> DeviceMemory::Import(const annulusMemoryHandle& handle) {
  Imported imported;
  void* base = nullptr;
  if (handle.kind == ANNULUS_MEMORY_CUDA_IPC) {
    cudaIpcMemHandle_t ipc;
    std::memcpy(&ipc, handle.ipc, sizeof(ipc));
    ANNULUS_RETURN_IF_ERROR(ToStatus(
        cudaIpcOpenMemHandle(&base, ipc, cudaIpcMemLazyEnablePeerAccess), "cudaIpcOpenMemHandle"));
    imported.ipc_base = base;
  } else if (handle.kind == ANNULUS_MEMORY_DESCRIPTOR && virtual_ != nullptr) {
    ANNULUS_ASSIGN_OR_RETURN(imported.block, virtual_->Import(handle.descriptor, handle.bytes));
    // NOLINTNEXTLINE(performance-no-int-to-ptr): to the driver an address is a number
    base = reinterpret_cast<void*>(imported.block.address);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("memory handle of kind ", static_cast<int>(handle.kind),
                     virtual_ == nullptr ? ", this device takes IPC handles alone" : ""));
  }
  void* const memory = static_cast<uint8_t*>(base) + handle.offset;
  std::lock_guard lock(mutex_);
  imported_.emplace(memory, imported);
  return memory;
}

absl::Status DeviceMemory::Release(void* memory) {
  Imported imported;
  {
    std::lock_guard lock(mutex_);
    const auto it = imported_.find(memory);
    if (it == imported_.end()) return absl::InvalidArgumentError("the memory was not imported");
    imported = it->second;
    imported_.erase(it);
  }
  if (imported.ipc_base != nullptr) {
    return ToStatus(cudaIpcCloseMemHandle(imported.ipc_base), "cudaIpcCloseMemHandle");
  }
  cudaDeviceSynchronize();  // unmapping does not wait for kernels
  virtual_->Destroy(imported.block);
  return absl::OkStatus();
}

}  // namespace annulus::kernels::cuda
