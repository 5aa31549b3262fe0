// SPDX-License-Identifier: Apache-2.0
#pragma once

// The head sizes that every device takes.

#include <cstdint>

namespace annulus::kernels {

inline constexpr int64_t kHeadDimMin = 16;
inline constexpr int64_t kHeadDimMax = 256;
inline constexpr int64_t kHeadDimStep = 8;

}  // namespace annulus::kernels
