// SPDX-License-Identifier: Apache-2.0
#pragma once

// What makers of processors differ in, and no instruction set tells. By name, not by a measurement
// at the start: the same machine takes the same path, and gives the same bits, in every run.

namespace annulus::kernels::cpu {

inline bool MadeByAmd() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

// Whether vdpbf16ps, which does twice the work of a float32 multiply-add, is begun as often as one.
// On Emerald Rapids it was measured at a quarter as often, so that conversion to float32 wins.
inline bool MultipliesPairsFast() { return MadeByAmd(); }

}  // namespace annulus::kernels::cpu
