// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/tensor_view.h"

namespace annulus::kernels::cpu {

// `count` rows of one head of one batch entry, picked out of a tensor by index.
struct HeadRows {
  const char* base = nullptr;  // row 0 of the head
  annulusDtype dtype = ANNULUS_F32;
  int64_t row_stride = 0;  // elements
  int64_t head_dim = 0;
  const int64_t* rows = nullptr;
  int64_t row_offset = 0;  // added to each of `rows`
  int64_t count = 0;

  const void* Row(int64_t i) const {
    return base + (rows[i] + row_offset) * row_stride * static_cast<int64_t>(DtypeBytes(dtype));
  }
  // For float32 tensors that may be written.
  float* FloatRow(int64_t i) const { return const_cast<float*>(static_cast<const float*>(Row(i))); }
};

inline HeadRows GatherHead(const annulusTensor& tensor, int64_t batch, int64_t head,
                           const int64_t* rows, int64_t count, int64_t row_offset) {
  return {static_cast<const char*>(RowPointer(tensor, batch, 0, head)),
          tensor.dtype,
          tensor.row_stride,
          tensor.head_dim,
          rows,
          row_offset,
          count};
}

// The same for a statistic: one float per row.
struct HeadStat {
  float* base = nullptr;  // row 0 of the head
  int64_t row_stride = 0;
  const int64_t* rows = nullptr;
  int64_t row_offset = 0;

  float& At(int64_t i) const { return base[(rows[i] + row_offset) * row_stride]; }
};

inline HeadStat GatherStat(const annulusRowStat& stat, int64_t batch, int64_t head,
                           const int64_t* rows, int64_t row_offset) {
  return {&RowStatAt(stat, batch, 0, head), stat.row_stride, rows, row_offset};
}

}  // namespace annulus::kernels::cpu
