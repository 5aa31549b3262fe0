// SPDX-License-Identifier: Apache-2.0
#pragma once

// The SIMD half of the backward pass: one packed query block against one packed key tile, five
// matrix products. Packed data are only valid for the instruction set in use.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/multiplier.h"
#include "kernels/cpu/row_map.h"

namespace annulus::kernels::cpu {

// Both operands of one head's key tile (forms of tile.h) and where its gradients are added.
struct BackwardKeys {
  float* k_columns = nullptr;
  float* v_columns = nullptr;
  float* k_panels = nullptr;
  // Of all pairs since the keys were packed: [kKeyTile][PaddedHeadDim(head_dim)], or transposed
  // (kSumsAreTransposed in arithmetic-inl.h).
  float* dk_sums = nullptr;
  float* dv_sums = nullptr;
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
  float* q_panels = nullptr;  // or dimensions (bf16_products.h)
  float* do_panels = nullptr;
  float* dq_sums = nullptr;  // [block rows][PaddedHeadDim(head_dim)], likewise
  HeadRows dq;               // float32
  HeadStat lse;
  HeadStat delta;
  const int64_t* positions = nullptr;
  int64_t count = 0;
  bool finite = true;  // no NaN or infinity in q and do
};

// Rows of a query block: kQueryBlock, or fewer.
int64_t BackwardBlockRows(const ArithmeticChoice& choice);

// `choice`, the same in all calls, is what they are packed for. `staging`: kKeyTile *
// PaddedHeadDim(head_dim) floats. Sets the packed contents and `finite`, and all sums to zero.
void PackBackwardKeys(const HeadRows& k, const HeadRows& v, const ArithmeticChoice& choice,
                      float* staging, BackwardKeys* keys);
// `staging`: the block's rows * PaddedHeadDim(head_dim) floats.
void PackBackwardQueries(const HeadRows& q, const HeadRows& d_o, float softmax_scale,
                         const ArithmeticChoice& choice, float* staging, BackwardQueries* queries);

// Scratch of one thread; 64-byte aligned floats.
struct BackwardScratch {
  float* weights;         // kQueryBlock * kScoreRowMax, as sums over queries take them
  float* d_scores;        // kQueryBlock * kScoreRowMax, as sums over queries take them
  float* group_scores;    // kGroupRowsMax * kScoreRowMax, where they cannot lie in `weights`
  float* group_d_scores;  // the same of d_weights, then score gradients as sums over keys take them
  float* staging;         // the larger of both blocks * PaddedHeadDim(head_dim)
};

// The sums for dq, dk and dv += the contributions of this pair of blocks (FlashAttention-2, arXiv
// 2307.08691, algorithm 2), or the gradients themselves. Rows whose lse is -inf and masked pairs
// contribute nothing, not even a NaN.
void AttendBackwardPair(const BackwardQueries& queries, const BackwardKeys& keys,
                        const annulusMask& mask, float softmax_scale,
                        const ArithmeticChoice& choice, const BackwardScratch& scratch);

// dk, dv, dq += the sums. `staging`: kKeyTile * PaddedHeadDim(head_dim) floats.
void FinishBackwardKeys(const BackwardKeys& keys, float softmax_scale,
                        const ArithmeticChoice& choice, float* staging);
void FinishBackwardQueries(const BackwardQueries& queries, float softmax_scale);

}  // namespace annulus::kernels::cpu
