// SPDX-License-Identifier: Apache-2.0
#pragma once

// Device memory of which other processes, and network cards, can be told by a descriptor: CUDA's
// virtual memory management. Its calls are the driver's own, found at run time; nothing links it.

#include <cudaTypedefs.h>

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace annulus::kernels::cuda {

class VirtualMemory {
 public:
  // Null where the device or the driver has none of it, or no descriptors.
  static std::unique_ptr<VirtualMemory> Open(int ordinal);

  struct Block {
    CUdeviceptr address = 0;
    size_t bytes = 0;  // whole granules
    CUmemGenericAllocationHandle handle = 0;
  };
  absl::StatusOr<Block> Create(size_t bytes) const;
  // A new descriptor, the caller's to close.
  absl::StatusOr<int> Export(const Block& block) const;
  // Does not consume the descriptor. `bytes`: of the whole allocation.
  absl::StatusOr<Block> Import(int descriptor, size_t bytes) const;
  void Destroy(const Block& block) const;

 private:
  explicit VirtualMemory(int ordinal) : ordinal_(ordinal) {}
  bool FindCalls();
  bool HasAttribute(CUdevice_attribute attribute) const;
  // Gives the allocation an address; releases it on failure.
  absl::StatusOr<Block> Map(CUmemGenericAllocationHandle handle, size_t bytes) const;
  absl::Status ToStatus(CUresult result, const char* call) const;

  const int ordinal_;
  CUmemAllocationProp properties_{};
  size_t granule_bytes_ = 0;
  PFN_cuGetErrorString_v6000 error_string_ = nullptr;
  PFN_cuDeviceGetAttribute_v2000 attribute_ = nullptr;
  PFN_cuMemGetAllocationGranularity_v10020 granularity_ = nullptr;
  PFN_cuMemCreate_v10020 create_ = nullptr;
  PFN_cuMemRelease_v10020 release_ = nullptr;
  PFN_cuMemAddressReserve_v10020 reserve_ = nullptr;
  PFN_cuMemAddressFree_v10020 unreserve_ = nullptr;
  PFN_cuMemMap_v10020 map_ = nullptr;
  PFN_cuMemUnmap_v10020 unmap_ = nullptr;
  PFN_cuMemSetAccess_v10020 set_access_ = nullptr;
  PFN_cuMemExportToShareableHandle_v10020 export_ = nullptr;
  PFN_cuMemImportFromShareableHandle_v10020 import_ = nullptr;
};

}  // namespace annulus::kernels::cuda
