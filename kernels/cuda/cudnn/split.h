// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which part of a call goes to cuDNN and which to the portable kernels. Pure.
//
// cuDNN knows two masks: everything, and the diagonal from the top left corner. A pair of spans of
// one stride under a causal mask is brought to that: key j is seen by query i where j <= i + d, so
// queries before -d see nothing, all others see the keys before d, and the rest is the diagonal.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/compute_plugin.h"

namespace annulus::kernels::cuda {

// Rows of q against rows of k and v: all of them, or, causal, key j of the piece where j <= i.
struct CudnnPiece {
  int64_t q_row, q_rows, kv_row, kv_rows;
  bool causal;
};

// To be attended by the portable kernels under the call's own mask.
struct PortablePiece {
  annulusSpan q, kv;
};

// Each pair of a query and a key that it may see is in exactly one piece.
struct CallSplit {
  std::vector<CudnnPiece> cudnn;
  std::vector<PortablePiece> portable;
};

// What has fewer queries or keys is portable: less than one tile of cuDNN's.
inline constexpr int64_t kCudnnRowsMin = 64;

CallSplit SplitCall(const annulusSpan* q_spans, size_t q_span_count, const annulusSpan* kv_spans,
                    size_t kv_span_count, const annulusMask& mask);

}  // namespace annulus::kernels::cuda
