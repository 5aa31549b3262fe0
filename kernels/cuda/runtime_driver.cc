// SPDX-License-Identifier: Apache-2.0
// The driver over the CUDA runtime. The runtime is linked in statically and opens libcuda when it
// is first called: on a machine without a GPU the plugin loads and OpenDriver says what is missing.
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/driver.h"
#include "kernels/cuda/hopper_plan.h"
#include "kernels/cuda/portable/kernels.h"
#include "kernels/cuda/runtime_status.h"
#include "kernels/cuda/sm90/kernels.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {
namespace {

using EncodeTiled = PFN_cuTensorMapEncodeTiled_v12000;

// The one call that the runtime has no name for; it lies in libcuda, which nobody links.
absl::StatusOr<EncodeTiled> FindEncodeTiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  ANNULUS_RETURN_IF_ERROR(
      ToStatus(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                cudaEnableDefault, &found),
               "cudaGetDriverEntryPointByVersion"));
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    return absl::InternalError("this driver has no cuTensorMapEncodeTiled, expected CUDA 12.0 on");
  }
  return reinterpret_cast<EncodeTiled>(function);
}

absl::StatusOr<TensorMap> EncodeWith(EncodeTiled encode, const TensorMapSpec& spec) {
  const annulusTensor& t = spec.tensor;
  const auto size = [](int64_t count) { return static_cast<cuuint64_t>(count); };
  const cuuint64_t sizes[4] = {size(t.head_dim), size(t.rows), size(t.heads), size(t.batch)};
  const cuuint64_t strides[3] = {size(MapStrideBytes(t, 1)), size(MapStrideBytes(t, 2)),
                                 size(MapStrideBytes(t, 3))};
  const cuuint32_t box[4] = {kPanelColumns, static_cast<cuuint32_t>(spec.box_rows), 1, 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  static_assert(sizeof(TensorMap) == sizeof(CUtensorMap));
  TensorMap map = {};
  const CUresult result = encode(
      reinterpret_cast<CUtensorMap*>(map.bytes),
      t.dtype == ANNULUS_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      4, t.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_ERROR_INVALID_VALUE) {
    return absl::InvalidArgumentError("cuTensorMapEncodeTiled does not take this tensor");
  }
  if (result != CUDA_SUCCESS) {
    return absl::InternalError(absl::StrCat("cuTensorMapEncodeTiled: error ", result));
  }
  return map;
}

absl::StatusOr<DeviceProperties> QueryProperties(int ordinal) {
  int count = 0;
  ANNULUS_RETURN_IF_ERROR(ToStatus(cudaGetDeviceCount(&count), "cudaGetDeviceCount"));
  if (ordinal < 0 || ordinal >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("device_ordinal ", ordinal, ", this machine has ", count, " CUDA devices"));
  }
  cudaDeviceProp found = {};
  ANNULUS_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&found, ordinal), "cudaGetDeviceProperties"));
  DeviceProperties properties;
  properties.name = found.name;
  properties.capability_major = found.major;
  properties.capability_minor = found.minor;
  properties.multiprocessors = found.multiProcessorCount;
  properties.memory_bytes = static_cast<int64_t>(found.totalGlobalMem);
  properties.shared_bytes_block = static_cast<int64_t>(found.sharedMemPerBlockOptin);
  char bus_id[32] = {};
  ANNULUS_RETURN_IF_ERROR(
      ToStatus(cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), ordinal), "cudaDeviceGetPCIBusId"));
  properties.bus_id = absl::AsciiStrToLower(bus_id);
  return properties;
}

const void* FunctionOf(KernelId id) {
  return ShapeOf(id).hopper ? HopperFunction(id) : KernelFunction(id);
}

class RuntimeDriver final : public Driver {
 public:
  RuntimeDriver(int ordinal, DeviceProperties properties)
      : ordinal_(ordinal), properties_(std::move(properties)) {}

  const DeviceProperties& properties() const override { return properties_; }
  absl::Status MakeCurrent() override { return Enter(); }

  // Makes the device's context, and lets every kernel have the shared memory it takes.
  absl::Status Prepare() {
    ANNULUS_RETURN_IF_ERROR(Enter());
    memory_ = std::make_unique<DeviceMemory>(ordinal_);
    if (properties_.capability_major < 8) return absl::OkStatus();  // refused by the caller
    if (properties_.capability_major >= 9) {
      ANNULUS_ASSIGN_OR_RETURN(encode_tiled_, FindEncodeTiled());
    }
    for (int id = 0; id < kKernelCount; ++id) {
      const KernelShape& shape = ShapeOf(static_cast<KernelId>(id));
      if (!RunsOn(shape, properties_)) continue;  // has no code for this device
      if (static_cast<int64_t>(shape.shared_bytes) > properties_.shared_bytes_block) continue;
      ANNULUS_RETURN_IF_ERROR(
          ToStatus(cudaFuncSetAttribute(FunctionOf(static_cast<KernelId>(id)),
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shape.shared_bytes)),
                   shape.name));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<void*> Allocate(size_t bytes) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    return memory_->Allocate(bytes);
  }
  void Free(void* memory) override {
    if (Enter().ok()) memory_->Free(memory);
  }

  absl::Status Copy(const annulusCopyArgs& args, Stream stream) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    const auto on = static_cast<cudaStream_t>(stream);
    if (args.rows == 1) {
      return ToStatus(cudaMemcpyAsync(args.to, args.from, args.row_bytes, cudaMemcpyDefault, on),
                      "cudaMemcpyAsync");
    }
    return ToStatus(cudaMemcpy2DAsync(args.to, args.to_pitch, args.from, args.from_pitch,
                                      args.row_bytes, args.rows, cudaMemcpyDefault, on),
                    "cudaMemcpy2DAsync");
  }
  absl::Status RegisterHost(void* memory, size_t bytes) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    return ToStatus(cudaHostRegister(memory, bytes, cudaHostRegisterPortable), "cudaHostRegister");
  }
  absl::Status UnregisterHost(void* memory) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    return ToStatus(cudaHostUnregister(memory), "cudaHostUnregister");
  }
  absl::StatusOr<annulusMemoryHandle> Export(const void* memory) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    return memory_->Export(memory);
  }
  absl::StatusOr<void*> Import(const annulusMemoryHandle& handle) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    return memory_->Import(handle);
  }
  absl::Status Release(void* memory) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    return memory_->Release(memory);
  }

  absl::StatusOr<Stream> CreateStream() override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    cudaStream_t stream = nullptr;
    ANNULUS_RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                                     "cudaStreamCreateWithFlags"));
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

  absl::Status Zero(void* memory, size_t bytes, Stream stream) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    return ToStatus(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)),
                    "cudaMemsetAsync");
  }

  absl::StatusOr<TensorMap> EncodeMap(const TensorMapSpec& spec) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    if (encode_tiled_ == nullptr) {
      return absl::InternalError("tensor maps are of compute capability 9.0 on");
    }
    return EncodeWith(encode_tiled_, spec);
  }

  absl::Status Launch(KernelId kernel, int64_t blocks, const void* params, Stream stream) override {
    ANNULUS_RETURN_IF_ERROR(Enter());
    const KernelShape& shape = ShapeOf(kernel);
    void* arguments[] = {const_cast<void*>(params)};
    return ToStatus(cudaLaunchKernel(FunctionOf(kernel), dim3(static_cast<unsigned>(blocks)),
                                     dim3(static_cast<unsigned>(shape.threads)), arguments,
                                     shape.shared_bytes, static_cast<cudaStream_t>(stream)),
                    shape.name);
  }

 private:
  // The current device belongs to the thread, and any thread may call.
  absl::Status Enter() const { return ToStatus(cudaSetDevice(ordinal_), "cudaSetDevice"); }

  const int ordinal_;
  const DeviceProperties properties_;
  std::unique_ptr<DeviceMemory> memory_;
  EncodeTiled encode_tiled_ = nullptr;  // looked up once, where there are tensor maps
};

}  // namespace

absl::StatusOr<std::unique_ptr<Driver>> OpenDriver(int ordinal) {
  ANNULUS_ASSIGN_OR_RETURN(DeviceProperties properties, QueryProperties(ordinal));
  auto driver = std::make_unique<RuntimeDriver>(ordinal, std::move(properties));
  ANNULUS_RETURN_IF_ERROR(driver->Prepare());
  return driver;
}

}  // namespace annulus::kernels::cuda
