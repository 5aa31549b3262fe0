// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which instruction sets the kernels are compiled for. On x86-64: AVX-512 (AVX3), AVX2 with FMA,
// SSE4, and plain C++ for anything older; the best one the processor has is chosen at run time.
// SSSE3 adds nothing over SSE4 but build time. Vectors of unknown length (SVE, RVV) cannot be held
// in the arrays the microkernels are written with; those machines run the NEON or plain version.
// To be included before any Highway header.

// ANNULUS_FEWER_TARGETS: AVX2 and plain C++ only, where compile time matters more (sanitizer
// builds).

#ifdef ANNULUS_FEWER_TARGETS
#define HWY_DISABLED_TARGETS                                                          \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | \
   HWY_SVE2_128 | HWY_RVV)
#else
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
