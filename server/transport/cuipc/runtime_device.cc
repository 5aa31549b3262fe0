// SPDX-License-Identifier: Apache-2.0
// The copy device over the CUDA runtime, which is linked in statically and opens libcuda when it is
// first called: on a machine without a GPU the plugin loads and OpenCopyDevice says what is
// missing.
#include <cuda_runtime.h>

#include <map>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/transport/cuipc/copy_device.h"
#include "server/transport/cuipc/driver_calls.h"

namespace annulus::transport::cuipc {
namespace {

absl::Status ToStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat(call, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  cudaGetLastError();  // a failed call is told once; one that broke the device comes again
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

CUdeviceptr Address(uint64_t address) { return static_cast<CUdeviceptr>(address); }

class RuntimeDevice final : public CopyDevice {
 public:
  RuntimeDevice(int ordinal, const DriverCalls& driver) : ordinal_(ordinal), driver_(driver) {}

  absl::StatusOr<Allocation> Find(const void* address) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    cudaPointerAttributes what{};
    ANNULUS_RETURN_IF_ERROR(
        ToStatus(cudaPointerGetAttributes(&what, address), "cudaPointerGetAttributes"));
    if (what.type == cudaMemoryTypeUnregistered || what.type == cudaMemoryTypeHost) {
      return Allocation{};
    }
    if (what.type != cudaMemoryTypeDevice) {
      return absl::InvalidArgumentError("managed memory cannot be given to another process");
    }
    if (what.device != ordinal_) {
      return absl::InvalidArgumentError(absl::StrCat(
          "memory of CUDA device ", what.device, ", but this transport is of device ", ordinal_));
    }
    return FindOnDevice(reinterpret_cast<CUdeviceptr>(address));
  }

  absl::StatusOr<SharedMemory> Export(const Allocation& allocation) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    SharedMemory memory;
    memory.allocation = allocation;
    ANNULUS_ASSIGN_OR_RETURN(
        const unsigned legacy,
        Attribute<unsigned>(CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, allocation.base));
    if (legacy != 0) {
      cudaIpcMemHandle_t handle{};
      static_assert(sizeof(handle) == sizeof(memory.ipc));
      ANNULUS_RETURN_IF_ERROR(ToStatus(cudaIpcGetMemHandle(&handle, PointerTo(allocation.base)),
                                       "cudaIpcGetMemHandle"));
      std::copy_n(reinterpret_cast<const uint8_t*>(&handle), sizeof(handle), memory.ipc.begin());
      return memory;
    }
    ANNULUS_ASSIGN_OR_RETURN(
        const uint64_t kinds,
        Attribute<uint64_t>(CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, allocation.base));
    if ((kinds & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) == 0) {
      return absl::InvalidArgumentError(
          "memory that can be given to no other process: allocate it with cudaMalloc, or with "
          "cuMemCreate for a POSIX file descriptor");
    }
    CUmemGenericAllocationHandle handle{};
    ANNULUS_RETURN_IF_ERROR(
        Driver(driver_.retain(&handle, PointerTo(allocation.base)), "cuMemRetainAllocationHandle"));
    int descriptor = -1;
    const absl::Status exported = Driver(
        driver_.export_handle(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
        "cuMemExportToShareableHandle");
    driver_.release(handle);
    ANNULUS_RETURN_IF_ERROR(exported);
    memory.descriptor = UniqueFd(descriptor);
    return memory;
  }

  absl::StatusOr<void*> Import(const SharedMemory& memory, bool own) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    if (memory.descriptor) return MapDescriptor(memory);
    // A process cannot open its own handle, and need not: one address space.
    if (own) return PointerTo(memory.allocation.base);
    cudaIpcMemHandle_t handle{};
    std::copy(memory.ipc.begin(), memory.ipc.end(), reinterpret_cast<uint8_t*>(&handle));
    void* mapped = nullptr;
    ANNULUS_RETURN_IF_ERROR(
        ToStatus(cudaIpcOpenMemHandle(&mapped, handle, cudaIpcMemLazyEnablePeerAccess),
                 "cudaIpcOpenMemHandle"));
    std::lock_guard lock(mutex_);
    opened_[mapped] = 0;
    return mapped;
  }

  void Release(void* imported) override {
    size_t bytes = 0;
    {
      std::lock_guard lock(mutex_);
      const auto found = opened_.find(imported);
      if (found == opened_.end()) return;  // of this process
      bytes = found->second;
      opened_.erase(found);
    }
    if (!Enter().ok()) return;
    if (bytes == 0) {
      cudaIpcCloseMemHandle(imported);
      return;
    }
    const CUdeviceptr address = reinterpret_cast<CUdeviceptr>(imported);
    driver_.unmap(address, bytes);
    driver_.free_address(address, bytes);
  }

  absl::StatusOr<Stream> CreateStream() override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    int least = 0;
    int greatest = 0;
    ANNULUS_RETURN_IF_ERROR(ToStatus(cudaDeviceGetStreamPriorityRange(&least, &greatest),
                                     "cudaDeviceGetStreamPriorityRange"));
    cudaStream_t stream = nullptr;
    ANNULUS_RETURN_IF_ERROR(
        ToStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest),
                 "cudaStreamCreateWithPriority"));
    return stream;
  }
  void DestroyStream(Stream stream) override {
    if (Enter().ok()) cudaStreamDestroy(static_cast<cudaStream_t>(stream));
  }
  absl::StatusOr<Event> CreateEvent() override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    cudaEvent_t event = nullptr;
    ANNULUS_RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                                     "cudaEventCreateWithFlags"));
    return event;
  }
  void DestroyEvent(Event event) override {
    if (Enter().ok()) cudaEventDestroy(static_cast<cudaEvent_t>(event));
  }

  absl::Status Enqueue(absl::Span<const Copy> copies, Stream stream) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    if (driver_.has_batches) return EnqueueBatch(copies, static_cast<cudaStream_t>(stream));
    for (const Copy& copy : copies) {
      ANNULUS_RETURN_IF_ERROR(
          ToStatus(cudaMemcpyAsync(copy.to, copy.from, copy.bytes, cudaMemcpyDeviceToDevice,
                                   static_cast<cudaStream_t>(stream)),
                   "cudaMemcpyAsync"));
    }
    return absl::OkStatus();
  }
  absl::Status Record(Event event, Stream stream) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    return ToStatus(
        cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)),
        "cudaEventRecord");
  }
  absl::StatusOr<bool> Reached(Event event) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    const cudaError_t answer = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (answer == cudaErrorNotReady) return false;
    ANNULUS_RETURN_IF_ERROR(ToStatus(answer, "cudaEventQuery"));
    return true;
  }

 private:
  // The current device belongs to the thread, and any thread may call.
  absl::Status Enter() const { return ToStatus(cudaSetDevice(ordinal_), "cudaSetDevice"); }

  absl::Status Driver(CUresult result, const char* call) const {
    if (result == CUDA_SUCCESS) return absl::OkStatus();
    const char* words = "";
    driver_.error_string(result, &words);
    const std::string text = absl::StrCat(call, ": ", words == nullptr ? "unknown" : words);
    return result == CUDA_ERROR_OUT_OF_MEMORY ? absl::ResourceExhaustedError(text)
                                              : absl::InternalError(text);
  }

  template <typename Value>
  absl::StatusOr<Value> Attribute(CUpointer_attribute attribute, uint64_t address) const {
    Value value{};
    ANNULUS_RETURN_IF_ERROR(Driver(driver_.pointer_attribute(&value, attribute, Address(address)),
                                   "cuPointerGetAttribute"));
    return value;
  }

  absl::StatusOr<Allocation> FindOnDevice(CUdeviceptr address) const {
    Allocation found;
    found.on_device = true;
    ANNULUS_ASSIGN_OR_RETURN(found.id,
                             Attribute<uint64_t>(CU_POINTER_ATTRIBUTE_BUFFER_ID, address));
    ANNULUS_ASSIGN_OR_RETURN(
        const unsigned legacy,
        Attribute<unsigned>(CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, address));
    if (legacy != 0) {
      CUdeviceptr base = 0;
      ANNULUS_RETURN_IF_ERROR(
          Driver(driver_.address_range(&base, &found.bytes, address), "cuMemGetAddressRange"));
      found.base = base;
      return found;
    }
    // Virtual memory may map several allocations side by side: each counts by itself.
    ANNULUS_ASSIGN_OR_RETURN(found.base,
                             Attribute<uint64_t>(CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR, address));
    ANNULUS_ASSIGN_OR_RETURN(found.bytes,
                             Attribute<size_t>(CU_POINTER_ATTRIBUTE_MAPPING_SIZE, address));
    return found;
  }

  absl::StatusOr<void*> MapDescriptor(const SharedMemory& memory) {
    const size_t bytes = memory.allocation.bytes;
    CUmemGenericAllocationHandle handle{};
    ANNULUS_RETURN_IF_ERROR(Driver(
        driver_.import_handle(&handle, PointerTo(static_cast<uint64_t>(memory.descriptor.get())),
                              CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
        "cuMemImportFromShareableHandle"));
    CUdeviceptr address = 0;
    absl::Status status = Driver(driver_.reserve(&address, bytes, 0, 0, 0), "cuMemAddressReserve");
    if (status.ok()) status = Driver(driver_.map(address, bytes, 0, handle, 0), "cuMemMap");
    const bool mapped = status.ok();
    if (mapped) {
      CUmemAccessDesc access{};
      access.location = {CU_MEM_LOCATION_TYPE_DEVICE, ordinal_};
      access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
      status = Driver(driver_.set_access(address, bytes, &access, 1), "cuMemSetAccess");
    }
    driver_.release(handle);  // the mapping holds the memory
    if (!status.ok()) {
      if (mapped) driver_.unmap(address, bytes);
      if (address != 0) driver_.free_address(address, bytes);
      return status;
    }
    void* const imported = PointerTo(address);
    std::lock_guard lock(mutex_);
    opened_[imported] = bytes;
    return imported;
  }

  absl::Status EnqueueBatch(absl::Span<const Copy> copies, cudaStream_t stream) const {
    std::vector<void*> to;
    std::vector<const void*> from;
    std::vector<size_t> bytes;
    for (const Copy& copy : copies) {
      to.push_back(copy.to);
      from.push_back(copy.from);
      bytes.push_back(copy.bytes);
    }
    cudaMemcpyAttributes how{};
    how.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    how.flags = cudaMemcpyFlagPreferOverlapWithCompute;
    size_t first = 0;
    return ToStatus(cudaMemcpyBatchAsync(to.data(), from.data(), bytes.data(), bytes.size(), &how,
                                         &first, 1, stream),
                    "cudaMemcpyBatchAsync");
  }

  const int ordinal_;
  const DriverCalls driver_;
  std::mutex mutex_;
  std::map<void*, size_t> opened_;  // 0: an IPC handle; otherwise bytes of virtual memory
};

}  // namespace

absl::StatusOr<std::unique_ptr<CopyDevice>> OpenCopyDevice(int ordinal) {
  int count = 0;
  if (const absl::Status counted = ToStatus(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
      !counted.ok()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no CUDA device on this machine: ", counted.message()));
  }
  if (ordinal < 0 || ordinal >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("device_ordinal ", ordinal, ", this machine has ", count, " CUDA devices"));
  }
  ANNULUS_RETURN_IF_ERROR(ToStatus(cudaSetDevice(ordinal), "cudaSetDevice"));
  ANNULUS_ASSIGN_OR_RETURN(const DriverCalls driver, FindDriverCalls());
  return std::make_unique<RuntimeDevice>(ordinal, driver);
}

}  // namespace annulus::transport::cuipc
