// SPDX-License-Identifier: Apache-2.0
#pragma once

// The kernels by number, and what a launch of each takes.

#include <cstddef>
#include <cstdint>

namespace annulus::kernels::cuda {

enum class KernelId : int32_t {
  // portable/: head sizes up to the number.
  kAttend64,
  kAttend128,
  kAttend256,
  kAttendMatrixBf16_64,
  kAttendMatrixBf16_128,
  kAttendMatrixF16_64,
  kAttendMatrixF16_128,
  kQueryGradients64,
  kQueryGradients128,
  kQueryGradients256,
  kKeyGradients64,
  kKeyGradients128,
  kKeyGradients256,
  kReset,
  kRowDots,
  kMerge,
  kConvert,
  kAccumulate,
  // sm90/: head sizes up to the number.
  kAttendHopperBf16_64,
  kAttendHopperBf16_128,
  kAttendHopperF16_64,
  kAttendHopperF16_128,
  kBackwardHopperBf16_64,
  kBackwardHopperBf16_128,
  kBackwardHopperF16_64,
  kBackwardHopperF16_128,
  // cudnn/partial_rows.h
  kMergePartial,
  kBackwardInputs,
  kAddRows,
};
inline constexpr int kKernelCount = static_cast<int>(KernelId::kAddRows) + 1;

struct KernelShape {
  const char* name;
  int threads;          // of a block
  size_t shared_bytes;  // dynamic, of a block
  size_t params_bytes;  // of the one argument, passed by value
  int tile_rows;        // of queries and, portable, of keys; 0: no tiles
  bool hopper = false;  // runs on compute capability 9.0 and nowhere else
};

const KernelShape& ShapeOf(KernelId id);

}  // namespace annulus::kernels::cuda
