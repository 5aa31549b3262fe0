// SPDX-License-Identifier: Apache-2.0
#pragma once

// The SIMD half of the backward pass: one packed query block against one packed key tile, five
// matrix products. Packed data are only valid for the instruction set in use.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/row_map.h"

namespace annulus::kernels::cpu {

// Both operands of one head's key tile (forms of tile.h) and where its gradients are added.
struct BackwardKeys {
  float* k_columns = nullptr;
  float* v_columns = nullptr;
  float* k_panels = nullptr;
  HeadRows dk;  // float32
  HeadRows dv;  // float32
  const int64_t* positions = nullptr;
  int64_t count = 0;
  bool finite = true;  // no NaN or infinity in K
};

// One head's query block, q scaled as its arithmetic has it (arithmetic-inl.h).
struct BackwardQueries {
  float* q_strips = nullptr;
  float* do_strips = nullptr;
  float* q_panels = nullptr;
  float* do_panels = nullptr;
  HeadRows dq;  // float32
  HeadStat lse;
  HeadStat delta;
  const int64_t* positions = nullptr;
  int64_t count = 0;
  bool finite = true;  // no NaN or infinity in q and do
};

// `all_bf16`, the same in all calls: q, k, v and do all are bfloat16, which may have an arithmetic
// of its own (bf16_products.h). `staging`: kKeyTile * PaddedHeadDim(head_dim) floats. Sets the
// packed contents and `finite`.
void PackBackwardKeys(const HeadRows& k, const HeadRows& v, bool all_bf16, float* staging,
                      BackwardKeys* keys);
// `staging`: kQueryBlock * PaddedHeadDim(head_dim) floats.
void PackBackwardQueries(const HeadRows& q, const HeadRows& d_o, float softmax_scale, bool all_bf16,
                         float* staging, BackwardQueries* queries);

// Scratch of one thread; 64-byte aligned floats.
struct BackwardScratch {
  float* weights;      // kQueryBlock * kScoreRowMax, of which those of one group in use where its
  float* d_scores;     // kQueryBlock * kScoreRowMax, arithmetic multiplies columns
  float* w_columns;    // kQueryBlock * kScoreRowMax: weights as words along the rows, in pieces
  float* d_columns;    // the same of d_scores
  float* accumulator;  // the larger of both blocks * PaddedHeadDim(head_dim)
};

// dq, dk, dv += the contributions of this pair of blocks (FlashAttention-2, arXiv 2307.08691,
// algorithm 2). Rows whose lse is -inf and masked pairs contribute nothing, not even a NaN.
void AttendBackwardPair(const BackwardQueries& queries, const BackwardKeys& keys,
                        const annulusMask& mask, float softmax_scale, bool all_bf16,
                        const BackwardScratch& scratch);

}  // namespace annulus::kernels::cpu
