// SPDX-License-Identifier: Apache-2.0
// The portable kernels as the device runs them. Their bodies are in the headers.
#include <cstdint>

#include "kernels/cuda/cudnn/partial_rows.h"
#include "kernels/cuda/portable/backward.h"
#include "kernels/cuda/portable/device_thread.cuh"
#include "kernels/cuda/portable/forward.h"
#include "kernels/cuda/portable/forward_matrix.h"
#include "kernels/cuda/portable/kernels.h"
#include "kernels/cuda/portable/row_ops.h"

namespace annulus::kernels::cuda {
namespace {

template <int kDim>
__global__ __launch_bounds__(kBlockThreads) void AttendKernel(
    const __grid_constant__ AttendParams params) {
  DeviceThread thread;
  Attend<kDim>(thread, params);
}

template <class Half, int kDim>
__global__ __launch_bounds__(kMatrixThreads) void AttendMatrixKernel(
    const __grid_constant__ AttendParams params) {
  DeviceThread thread;
  AttendOnMatrixUnits<Half, kDim>(thread, params);
}

template <int kDim>
__global__ __launch_bounds__(kBlockThreads) void QueryGradientsKernel(
    const __grid_constant__ BackwardParams params) {
  DeviceThread thread;
  QueryGradients<kDim>(thread, params);
}

// One block a multiprocessor if need be: at 128 registers the one for head size 64 spills.
template <int kDim>
__global__ __launch_bounds__(kBlockThreads, 1) void KeyGradientsKernel(
    const __grid_constant__ BackwardParams params) {
  DeviceThread thread;
  KeyGradients<kDim>(thread, params);
}

__global__ __launch_bounds__(kBlockThreads) void ResetKernel(
    const __grid_constant__ RowParams params) {
  DeviceThread thread;
  ResetRows(thread, params);
}

__global__ __launch_bounds__(kBlockThreads) void RowDotsKernel(
    const __grid_constant__ RowParams params) {
  DeviceThread thread;
  RowDots(thread, params);
}

__global__ __launch_bounds__(kBlockThreads) void MergeKernel(
    const __grid_constant__ RowParams params) {
  DeviceThread thread;
  MergeRows(thread, params);
}

__global__ __launch_bounds__(kBlockThreads) void ConvertKernel(
    const __grid_constant__ RowParams params) {
  DeviceThread thread;
  ConvertRows(thread, params);
}

__global__ __launch_bounds__(kBlockThreads) void AccumulateKernel(
    const __grid_constant__ AccumulateParams params) {
  DeviceThread thread;
  Accumulate(thread, params);
}

__global__ __launch_bounds__(kBlockThreads) void MergePartialKernel(
    const __grid_constant__ PartialParams params) {
  DeviceThread thread;
  MergePartial(thread, params);
}

__global__ __launch_bounds__(kBlockThreads) void BackwardInputsKernel(
    const __grid_constant__ PartialParams params) {
  DeviceThread thread;
  BackwardInputs(thread, params);
}

__global__ __launch_bounds__(kBlockThreads) void AddRowsKernel(
    const __grid_constant__ PartialParams params) {
  DeviceThread thread;
  AddRows(thread, params);
}

template <typename Kernel>
const void* Address(Kernel kernel) {
  return reinterpret_cast<const void*>(kernel);
}

}  // namespace

const void* KernelFunction(KernelId id) {
  switch (id) {
    case KernelId::kAttend64:
      return Address(AttendKernel<64>);
    case KernelId::kAttend128:
      return Address(AttendKernel<128>);
    case KernelId::kAttend256:
      return Address(AttendKernel<256>);
    case KernelId::kAttendMatrixBf16_64:
      return Address(AttendMatrixKernel<Bf16, 64>);
    case KernelId::kAttendMatrixBf16_128:
      return Address(AttendMatrixKernel<Bf16, 128>);
    case KernelId::kAttendMatrixF16_64:
      return Address(AttendMatrixKernel<F16, 64>);
    case KernelId::kAttendMatrixF16_128:
      return Address(AttendMatrixKernel<F16, 128>);
    case KernelId::kQueryGradients64:
      return Address(QueryGradientsKernel<64>);
    case KernelId::kQueryGradients128:
      return Address(QueryGradientsKernel<128>);
    case KernelId::kQueryGradients256:
      return Address(QueryGradientsKernel<256>);
    case KernelId::kKeyGradients64:
      return Address(KeyGradientsKernel<64>);
    case KernelId::kKeyGradients128:
      return Address(KeyGradientsKernel<128>);
    case KernelId::kKeyGradients256:
      return Address(KeyGradientsKernel<256>);
    case KernelId::kReset:
      return Address(ResetKernel);
    case KernelId::kRowDots:
      return Address(RowDotsKernel);
    case KernelId::kMerge:
      return Address(MergeKernel);
    case KernelId::kConvert:
      return Address(ConvertKernel);
    case KernelId::kAccumulate:
      return Address(AccumulateKernel);
    case KernelId::kMergePartial:
      return Address(MergePartialKernel);
    case KernelId::kBackwardInputs:
      return Address(BackwardInputsKernel);
    case KernelId::kAddRows:
      return Address(AddRowsKernel);
    default:
      return nullptr;
  }
}

}  // namespace annulus::kernels::cuda
