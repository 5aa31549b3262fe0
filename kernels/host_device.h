// SPDX-License-Identifier: Apache-2.0
#pragma once

// Functions that are compiled for the host and, by nvcc, for the device as well.

#if defined(__CUDACC__)
#define ANNULUS_HOST_DEVICE __host__ __device__
// For the bodies of kernels: their arrays stay in registers only when nothing is called.
#define ANNULUS_KERNEL_INLINE __host__ __device__ __forceinline__
// Before a loop: an array that it indexes stays in registers only when it is unrolled.
#define ANNULUS_UNROLL _Pragma("unroll")
#define ANNULUS_KEEP_ROLLED _Pragma("unroll 1")
// So many turns at a time.
#define ANNULUS_UNROLL_BY(turns) ANNULUS_PRAGMA(unroll turns)
#define ANNULUS_PRAGMA(text) _Pragma(#text)
#else
#define ANNULUS_HOST_DEVICE
#define ANNULUS_KERNEL_INLINE inline
#define ANNULUS_UNROLL
#define ANNULUS_KEEP_ROLLED
#define ANNULUS_UNROLL_BY(turns)
#endif
