// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a portable kernel knows of its surroundings (portable/block_tile.h), on the device.

namespace annulus::kernels::cuda {

class DeviceThread {
 public:
  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ int64_t block() const { return blockIdx.x; }
  __device__ __forceinline__ float* shared() const {
    extern __shared__ float dynamic_shared[];
    return dynamic_shared;
  }
  __device__ __forceinline__ void Sync() const { __syncthreads(); }
  __device__ __forceinline__ void SyncWarp() const { __syncwarp(); }
  __device__ __forceinline__ float ShuffleXor(float value, int m) const {
    return __shfl_xor_sync(0xffffffffu, value, m);
  }
};

}  // namespace annulus::kernels::cuda
