// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention as a graph that cuDNN recognises and runs as one kernel (FlashAttention-2, arXiv
// 2307.08691). What it recognises is the exact form: the order of the operations, and which tensors
// are in memory, follow the graphs of NVIDIA's cudnn-frontend.

#include <cstdint>

#include "kernels/cuda/cudnn/cudnn_api.h"
#include "kernels/cuda/cudnn/graph_builder.h"

namespace annulus::kernels::cuda {

// Tensors that Execute names.
enum class GraphTensor : int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kStats,
  kDo,
  kDq,
  kDk,
  kDv,
  kDelta,   // float32 [batch, query_heads, q_rows], written: rowsum(do * o)
  kDqSum,   // float32 [batch, query_heads, q_rows, head_dim], written: dq before it is rounded
  kScale,   // by value, as are those that follow
  kMasked,  // what stands for a score that is not seen: -inf
  kOne,
};

// The whole graph of the shape. Failures are in the builder's status.
void BuildAttentionGraph(const AttentionShape& shape, GraphBuilder* graph);

}  // namespace annulus::kernels::cuda
