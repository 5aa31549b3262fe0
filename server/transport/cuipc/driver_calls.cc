// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/driver_calls.h"

#include "absl/strings/str_cat.h"

namespace annulus::transport::cuipc {
namespace {

template <typename Function>
bool Find(const char* name, unsigned version, Function* function) {
  cudaDriverEntryPointQueryResult found{};
  void* address = nullptr;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &address, version, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    cudaGetLastError();
    return false;
  }
  *function = reinterpret_cast<Function>(address);
  return true;
}

}  // namespace

absl::StatusOr<DriverCalls> FindDriverCalls() {
  DriverCalls calls;
  const bool all = Find("cuGetErrorString", 6000, &calls.error_string) &&
                   Find("cuPointerGetAttribute", 4000, &calls.pointer_attribute) &&
                   Find("cuMemGetAddressRange", 3020, &calls.address_range) &&
                   Find("cuMemRetainAllocationHandle", 11000, &calls.retain) &&
                   Find("cuMemRelease", 10020, &calls.release) &&
                   Find("cuMemExportToShareableHandle", 10020, &calls.export_handle) &&
                   Find("cuMemImportFromShareableHandle", 10020, &calls.import_handle) &&
                   Find("cuMemAddressReserve", 10020, &calls.reserve) &&
                   Find("cuMemAddressFree", 10020, &calls.free_address) &&
                   Find("cuMemMap", 10020, &calls.map) && Find("cuMemUnmap", 10020, &calls.unmap) &&
                   Find("cuMemSetAccess", 10020, &calls.set_access);
  if (!all) return absl::ResourceExhaustedError("the CUDA driver is too old for cuipc");
  void* batch = nullptr;
  calls.has_batches = Find("cuMemcpyBatchAsync", CUDART_VERSION, &batch);
  return calls;
}

}  // namespace annulus::transport::cuipc
