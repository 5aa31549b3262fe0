// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

namespace annulus::kernels::cuda {

// A kernel did what the hardware gives no meaning to: the program ends and says what.
[[noreturn]] inline void BreakRule(const std::string& what) {
  std::fprintf(stderr, "emulator: %s\n", what.c_str());
  std::abort();
}

}  // namespace annulus::kernels::cuda
