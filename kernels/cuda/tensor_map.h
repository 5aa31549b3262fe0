// SPDX-License-Identifier: Apache-2.0
#pragma once

// How the copy engine of a multiprocessor (TMA) is told of a tensor: an opaque map of 128 bytes
// that the driver encodes on the host and that travels in a kernel's parameters.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/tensor_view.h"

namespace annulus::kernels::cuda {

// A kernel sees it through its __grid_constant__ parameters and never looks inside.
struct alignas(64) TensorMap {
  uint8_t bytes[128];
};

// A tile in shared memory is panels of 64 columns of 16 bits: 128 bytes a row, swizzled.
inline constexpr int kPanelColumns = 64;
inline constexpr int kPanelRowBytes = 128;

// What a map says. Coordinates of a load are (column, row, head, batch); what lies outside the
// tensor arrives as zero. A load brings one panel of `box_rows` rows.
struct TensorMapSpec {
  annulusTensor tensor;  // bf16 or f16
  int box_rows;          // 1 .. 256
};

inline constexpr int64_t kTensorMapAlignment = 16;

// Whether a map can be made: base and strides on 16 bytes, and sizes that coordinates can count.
inline bool CanMap(const annulusTensor& t) {
  constexpr int64_t kRowsMax = (int64_t{1} << 31) - 1;
  constexpr int64_t kStrideMax = int64_t{1} << 38;  // in elements; 2^40 bytes less some
  const int64_t strides[] = {t.row_stride, t.head_stride, t.batch_stride};
  const int64_t counts[] = {t.rows, t.heads, t.batch};
  if (t.dtype != ANNULUS_BF16 && t.dtype != ANNULUS_F16) return false;
  if (reinterpret_cast<uintptr_t>(t.data) % kTensorMapAlignment != 0) return false;
  for (int i = 0; i < 3; ++i) {
    if (counts[i] < 1 || counts[i] > kRowsMax) return false;
    if (counts[i] == 1) continue;
    if (strides[i] <= 0 || strides[i] > kStrideMax || strides[i] % 8 != 0) return false;
  }
  return true;
}

// Bytes from one element of dimension `i` (1 row, 2 head, 3 batch) to the next, as a map wants it:
// a dimension of one element has any stride, but not none.
inline int64_t MapStrideBytes(const annulusTensor& t, int i) {
  const int64_t strides[] = {t.row_stride, t.head_stride, t.batch_stride};
  const int64_t counts[] = {t.rows, t.heads, t.batch};
  return counts[i - 1] == 1 ? kTensorMapAlignment : 2 * strides[i - 1];
}

}  // namespace annulus::kernels::cuda
