// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/worker/engine.h"

namespace annulus::worker {

// Bytes of one element; 0 for a value that is no dtype.
constexpr int64_t ElementBytes(annulusDtype dtype) {
  switch (dtype) {
    case ANNULUS_F32:
      return 4;
    case ANNULUS_BF16:
    case ANNULUS_F16:
      return 2;
  }
  return 0;
}

// What a tensor must look like in this place of a call.
struct TensorShape {
  const char* name = "";  // "q", for messages
  int64_t batch = 1;
  int heads = 1;
  int head_dim = 0;  // 0: a statistic per row (LSE)
};

// The reference with dense strides filled in, once it is known to be of the given shape with
// sensible strides, tokens that count its rows, and every element inside `memory_bytes` from
// `offset` on. INVALID_ARGUMENT else, naming the tensor, what was expected and what was got. No
// input overflows.
//
// Strides: all 0 stands for dense. Else each dimension of more than one index must step over at
// least head_dim elements (LSE: heads next to each other, rows over at least `heads`), and the
// tensor has no more elements than its memory: views that overlap themselves are refused.
absl::StatusOr<TensorRef> CheckTensorRef(const TensorRef& ref, const TensorShape& shape,
                                         uint64_t offset, uint64_t memory_bytes);

}  // namespace annulus::worker
