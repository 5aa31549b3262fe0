// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a portable kernel knows of its surroundings (portable/block_tile.h, matrix_tile.h), on the
// device.

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/portable/matrix_tile.h"

namespace annulus::kernels::cuda {

class DeviceThread {
 public:
  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ int64_t block() const { return blockIdx.x; }
  __device__ __forceinline__ float* shared() const {
    extern __shared__ __align__(16) float dynamic_shared[];
    return dynamic_shared;
  }
  __device__ __forceinline__ void Sync() const { __syncthreads(); }
  __device__ __forceinline__ void SyncWarp() const { __syncwarp(); }
  __device__ __forceinline__ float ShuffleXor(float value, int m) const {
    return __shfl_xor_sync(0xffffffffu, value, m);
  }
  __device__ __forceinline__ float ShuffleFrom(float value, int lane) const {
    return __shfl_sync(0xffffffffu, value, lane);
  }
  __device__ __forceinline__ bool SyncOr(bool flag) const { return __syncthreads_or(flag) != 0; }

  template <class Half>
  __device__ __forceinline__ uint32_t RoundPair(float low, float high) const {
    uint32_t pair;
    if constexpr (std::is_same_v<Half, Bf16>) {
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    } else {
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    }
    return pair;
  }

  template <class Half>
  __device__ __forceinline__ void Mma(const uint32_t (&a)[4], const uint32_t (&b)[2],
                                      float (&c)[4]) const {
    if constexpr (std::is_same_v<Half, Bf16>) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }
};

}  // namespace annulus::kernels::cuda
