// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/virtual_memory.h"

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {
namespace {

// `version`: the release whose form of the call the type of `call` is.
template <typename Call>
bool Find(const char* name, unsigned version, Call* call) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  if (cudaGetDriverEntryPointByVersion(name, &found, version, cudaEnableDefault, &result) !=
          cudaSuccess ||
      result != cudaDriverEntryPointSuccess) {
    cudaGetLastError();
    return false;
  }
  *call = reinterpret_cast<Call>(found);
  return true;
}

}  // namespace

std::unique_ptr<VirtualMemory> VirtualMemory::Open(int ordinal) {
  std::unique_ptr<VirtualMemory> memory(new VirtualMemory(ordinal));
  if (!memory->FindCalls() ||
      !memory->HasAttribute(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED) ||
      !memory->HasAttribute(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED)) {
    return nullptr;
  }
  CUmemAllocationProp& properties = memory->properties_;
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = ordinal;
  if (memory->HasAttribute(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED)) {
    properties.allocFlags.gpuDirectRDMACapable = 1;
  }
  const CUresult result = memory->granularity_(&memory->granule_bytes_, &properties,
                                               CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
  return result == CUDA_SUCCESS && memory->granule_bytes_ > 0 ? std::move(memory) : nullptr;
}

bool VirtualMemory::FindCalls() {
  constexpr unsigned kSince = 10020;
  return Find("cuGetErrorString", 6000, &error_string_) &&
         Find("cuDeviceGetAttribute", 2000, &attribute_) &&
         Find("cuMemGetAllocationGranularity", kSince, &granularity_) &&
         Find("cuMemCreate", kSince, &create_) && Find("cuMemRelease", kSince, &release_) &&
         Find("cuMemAddressReserve", kSince, &reserve_) &&
         Find("cuMemAddressFree", kSince, &unreserve_) && Find("cuMemMap", kSince, &map_) &&
         Find("cuMemUnmap", kSince, &unmap_) && Find("cuMemSetAccess", kSince, &set_access_) &&
         Find("cuMemExportToShareableHandle", kSince, &export_) &&
         Find("cuMemImportFromShareableHandle", kSince, &import_);
}

bool VirtualMemory::HasAttribute(CUdevice_attribute attribute) const {
  int value = 0;
  return attribute_(&value, attribute, ordinal_) == CUDA_SUCCESS && value != 0;
}

absl::Status VirtualMemory::ToStatus(CUresult result, const char* call) const {
  if (result == CUDA_SUCCESS) return absl::OkStatus();
  const char* words = nullptr;
  if (error_string_(result, &words) != CUDA_SUCCESS) words = "unknown";
  const std::string text = absl::StrCat(call, ": ", words, " (", static_cast<int>(result), ")");
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return absl::ResourceExhaustedError(text);
  if (result == CUDA_ERROR_INVALID_VALUE) return absl::InvalidArgumentError(text);
  return absl::InternalError(text);
}

absl::StatusOr<VirtualMemory::Block> VirtualMemory::Create(size_t bytes) const {
  const size_t whole = (bytes + granule_bytes_ - 1) / granule_bytes_ * granule_bytes_;
  CUmemGenericAllocationHandle handle = 0;
  ANNULUS_RETURN_IF_ERROR(ToStatus(create_(&handle, whole, &properties_, 0), "cuMemCreate"));
  return Map(handle, whole);
}

absl::StatusOr<VirtualMemory::Block> VirtualMemory::Map(CUmemGenericAllocationHandle handle,
                                                        size_t bytes) const {
  Block block{0, bytes, handle};
  absl::Status status = ToStatus(reserve_(&block.address, bytes, 0, 0, 0), "cuMemAddressReserve");
  if (!status.ok()) {
    release_(handle);
    return status;
  }
  status = ToStatus(map_(block.address, bytes, 0, handle, 0), "cuMemMap");
  if (!status.ok()) {
    unreserve_(block.address, bytes);
    release_(handle);
    return status;
  }
  CUmemAccessDesc access{};
  access.location = properties_.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  status = ToStatus(set_access_(block.address, bytes, &access, 1), "cuMemSetAccess");
  if (status.ok()) return block;
  Destroy(block);
  return status;
}

absl::StatusOr<int> VirtualMemory::Export(const Block& block) const {
  int descriptor = -1;
  ANNULUS_RETURN_IF_ERROR(
      ToStatus(export_(&descriptor, block.handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
               "cuMemExportToShareableHandle"));
  return descriptor;
}

absl::StatusOr<VirtualMemory::Block> VirtualMemory::Import(int descriptor, size_t bytes) const {
  CUmemGenericAllocationHandle handle = 0;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): a descriptor travels as a pointer here
  void* const os_handle = reinterpret_cast<void*>(static_cast<intptr_t>(descriptor));
  ANNULUS_RETURN_IF_ERROR(
      ToStatus(import_(&handle, os_handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
               "cuMemImportFromShareableHandle"));
  return Map(handle, bytes);
}

void VirtualMemory::Destroy(const Block& block) const {
  unmap_(block.address, block.bytes);
  unreserve_(block.address, block.bytes);
  release_(block.handle);
}

}  // namespace annulus::kernels::cuda
