// SPDX-License-Identifier: Apache-2.0
// The kernels of compute capability 9.0 as the device runs them. Their bodies are in the headers.
#include "kernels/cuda/sm90/backward.h"
#include "kernels/cuda/sm90/forward.h"
#include "kernels/cuda/sm90/hopper_device_thread.cuh"
#include "kernels/cuda/sm90/kernels.h"

namespace annulus::kernels::cuda {
namespace {

template <class Half, int kDim>
__global__ __launch_bounds__(AttendShape<kDim>::kThreads, 1) void AttendHopperKernel(
    const __grid_constant__ HopperAttendParams params) {
  HopperDeviceThread thread;
  AttendHopper<Half, kDim>(thread, params);
}

template <class Half, int kDim>
__global__ __launch_bounds__(BackwardShape<kDim>::kThreads, 1) void BackwardHopperKernel(
    const __grid_constant__ HopperBackwardParams params) {
  HopperDeviceThread thread;
  AttendBackwardHopper<Half, kDim>(thread, params);
}

template <typename Kernel>
const void* Address(Kernel kernel) {
  return reinterpret_cast<const void*>(kernel);
}

}  // namespace

const void* HopperFunction(KernelId id) {
  switch (id) {
    case KernelId::kAttendHopperBf16_64:
      return Address(AttendHopperKernel<Bf16, 64>);
    case KernelId::kAttendHopperBf16_128:
      return Address(AttendHopperKernel<Bf16, 128>);
    case KernelId::kAttendHopperF16_64:
      return Address(AttendHopperKernel<F16, 64>);
    case KernelId::kAttendHopperF16_128:
      return Address(AttendHopperKernel<F16, 128>);
    case KernelId::kBackwardHopperBf16_64:
      return Address(BackwardHopperKernel<Bf16, 64>);
    case KernelId::kBackwardHopperBf16_128:
      return Address(BackwardHopperKernel<Bf16, 128>);
    case KernelId::kBackwardHopperF16_64:
      return Address(BackwardHopperKernel<F16, 64>);
    case KernelId::kBackwardHopperF16_128:
      return Address(BackwardHopperKernel<F16, 128>);
    default:
      return nullptr;
  }
}

}  // namespace annulus::kernels::cuda
