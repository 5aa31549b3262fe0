// SPDX-License-Identifier: Apache-2.0
#pragma once

// Functions that are compiled for the host and, by nvcc, for the device as well.

#if defined(__CUDACC__)
#define ANNULUS_HOST_DEVICE __host__ __device__
// For the bodies of kernels: their arrays stay in registers only when nothing is called.
#define ANNULUS_KERNEL_INLINE __host__ __device__ __forceinline__
#else
#define ANNULUS_HOST_DEVICE
#define ANNULUS_KERNEL_INLINE inline
#endif
