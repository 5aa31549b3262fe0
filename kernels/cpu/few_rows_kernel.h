// SPDX-License-Identifier: Apache-2.0
#pragma once

// The SIMD half of the forward pass for few query rows (decoding): they are held against key tiles
// as these lie in the tensor. Packing a tile costs as much as attending a dozen rows to it, and
// one query is done when every key and value was read once.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/tile.h"

namespace annulus::kernels::cpu {

// The most query rows, over all heads of a KV head's group, that this path is for.
inline constexpr int64_t kFewRowsMax = 12;

// KV heads whose rows, neighbours in memory as a rule, are read side by side.
inline constexpr int64_t kFewRowsHeads = 8;
// Floats of scratch that AttendFewRows needs, 64-byte aligned.
inline constexpr int64_t kFewRowsScratch = kFewRowsHeads * kFewRowsMax * kKeyTile;

// Some rows' softmax over a chunk of the keys: a state (softmax_state.h) and an unnormalised output
// each.
struct FewRowsPartial {
  float* max;     // [kFewRowsStates], of which row_count count
  float* sum;     // the same
  float* output;  // [row_count][PaddedHeadDim(head_dim)]
};
// Rows, and room for a vector more.
inline constexpr int64_t kFewRowsStates = kFewRowsMax + kPanelWidthMax / 2;

// Copies rows of one head to q[0, rows.count), PaddedHeadDim(head_dim) apart and zero-padded, times
// scale * log2(e).
void PackFewRows(const HeadRows& rows, float softmax_scale, float* q);

// One KV head: its query rows as PackFewRows left them, row 0 of its keys and of its values, and
// where the result goes.
struct FewRowsHead {
  const float* q;
  const void* k;
  const void* v;
  FewRowsPartial partial;
};

// What the heads share.
struct FewRowsBlock {
  annulusDtype dtype;  // of keys and values
  int64_t head_dim;
  int64_t k_row_stride;  // elements
  int64_t v_row_stride;
  const int64_t* row_positions;  // [row_count]
  int64_t row_count;             // <= kFewRowsMax
  const annulusSpan* tiles;      // of keys, at most kKeyTile each
  int64_t tile_count;
  annulusMask mask;
};

// Each head's partial = the attention of its rows over the keys of the tiles. head_count <=
// kFewRowsHeads; `scratch`: kFewRowsScratch floats.
void AttendFewRows(const FewRowsHead* heads, int64_t head_count, const FewRowsBlock& block,
                   float* scratch);

// (o, lse) of one row, o float32, <- merged with the row's states in `count` partials, in order. A
// row that no partial has a key for keeps its bytes.
void MergeFewRows(const FewRowsPartial* partials, int64_t count, int64_t row, int64_t head_dim,
                  float* o, float* lse);

}  // namespace annulus::kernels::cpu
