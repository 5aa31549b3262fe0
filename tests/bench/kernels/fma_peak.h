// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace annulus::kernels {

// Runs independent fused multiply-adds on the widest vectors of this processor for about a
// millisecond and returns the floating-point operations done. The ceiling that a kernel's speed is
// given as a share of.
double RunFmaPeak();

}  // namespace annulus::kernels
