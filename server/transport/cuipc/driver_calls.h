// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include "absl/status/statusor.h"

namespace annulus::transport::cuipc {

// Calls of the CUDA driver that the runtime has no twin for, found through the runtime: nothing
// links libcuda.
struct DriverCalls {
  PFN_cuGetErrorString_v6000 error_string = nullptr;
  PFN_cuPointerGetAttribute_v4000 pointer_attribute = nullptr;
  PFN_cuMemGetAddressRange_v3020 address_range = nullptr;
  PFN_cuMemRetainAllocationHandle_v11000 retain = nullptr;
  PFN_cuMemRelease_v10020 release = nullptr;
  PFN_cuMemExportToShareableHandle_v10020 export_handle = nullptr;
  PFN_cuMemImportFromShareableHandle_v10020 import_handle = nullptr;
  PFN_cuMemAddressReserve_v10020 reserve = nullptr;
  PFN_cuMemAddressFree_v10020 free_address = nullptr;
  PFN_cuMemMap_v10020 map = nullptr;
  PFN_cuMemUnmap_v10020 unmap = nullptr;
  PFN_cuMemSetAccess_v10020 set_access = nullptr;
  bool has_batches = false;  // cuMemcpyBatchAsync, for cudaMemcpyBatchAsync
};

// RESOURCE_EXHAUSTED: a driver without one of them.
absl::StatusOr<DriverCalls> FindDriverCalls();

}  // namespace annulus::transport::cuipc
