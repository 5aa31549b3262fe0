// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a launch hands to a kernel, by value. Tensors are those of compute_plugin.h; their `data`
// are device addresses.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/tile_schedule.h"

namespace annulus::kernels::cuda {

// o, lse <- merge((o, lse), attention of the segments of q over those of kv). One block a tile of
// queries and query head.
struct AttendParams {
  SegmentList q_segments, kv_segments;
  annulusTensor q, k, v, o;
  annulusRowStat lse;
  annulusMask mask;
  float softmax_scale;
  int64_t o_row_offset;
};

// dq += (one block a tile of queries and query head) or dk, dv += (one block a tile of keys and KV
// head). Rows of dq, lse and delta = row of q + dq_row_offset, of dk and dv = row of k +
// dkv_row_offset.
struct BackwardParams {
  SegmentList q_segments, kv_segments;
  annulusTensor q, k, v, d_o, dq, dk, dv;
  annulusRowStat lse, delta;
  annulusMask mask;
  float softmax_scale;
  int64_t dq_row_offset;
  int64_t dkv_row_offset;
};

// Row operations, one warp a row of a head. What an operation does not use is unset.
struct RowParams {
  annulusTensor a, b;
  annulusRowStat a_stat, b_stat;
};

// Row operations between the accumulators of a call and what cuDNN computed: cudnn/partial_rows.h.
struct PartialParams {
  annulusTensor a, b;
  annulusRowStat a_stat, b_stat;
  float* head_stats;  // [batch, heads, rows] of a
};

// dst[i] += src[i].
struct AccumulateParams {
  float* dst;
  const void* src;
  annulusDtype src_dtype;
  int64_t count;
};

static_assert(sizeof(AttendParams) <= 4096 && sizeof(BackwardParams) <= 4096,
              "the parameters of a kernel are 4 KiB at most");

}  // namespace annulus::kernels::cuda
