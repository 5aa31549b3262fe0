// SPDX-License-Identifier: Apache-2.0
#pragma once

// The SIMD half of the forward pass for few query rows (decoding): they are held against key tiles
// as these lie in the tensor. Packing a tile costs as much as attending a dozen rows to it, and
// one query is done when every key and value was read once.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/row_map.h"
#include "kernels/softmax_state.h"

namespace annulus::kernels::cpu {

// The most query rows, over all heads of a KV head's group, that this path is for.
inline constexpr int64_t kFewRowsMax = 12;

// Some of the rows' softmax over a chunk of the keys: a state and an unnormalised output each.
struct FewRowsPartial {
  SoftmaxState<float>* softmax;  // [row_count]
  float* output;                 // [row_count][PaddedHeadDim(head_dim)]
};

// Query rows as PackFewRows left them.
struct FewRowsQueries {
  const float* q;            // [row_count][PaddedHeadDim(head_dim)], scaled, zero-padded
  const int64_t* positions;  // [row_count]
  int64_t row_count;         // <= kFewRowsMax
};

// Copies rows of one head to q[0, rows.count), times scale * log2(e).
void PackFewRows(const HeadRows& rows, float softmax_scale, float* q);

// A chunk of one KV head's keys, cut into tiles of rising positions.
struct FewRowsKeys {
  HeadRows k;  // all rows of the map that the tiles index
  HeadRows v;
  const int64_t* positions;
  const IndexRange* tiles;
  int64_t tile_count;
};

// partial = the attention of the rows over the keys of the chunk. `scores`: kFewRowsMax * kKeyTile
// aligned floats of scratch.
void AttendFewRows(const FewRowsQueries& queries, const FewRowsKeys& keys, const annulusMask& mask,
                   float* scores, const FewRowsPartial& partial);

// (o, lse) of one row, o float32, <- merged with the row's states in `count` partials, in order. A
// row that no partial has a key for keeps its bytes.
void MergeFewRows(const FewRowsPartial* partials, int64_t count, int64_t row, int64_t head_dim,
                  float* o, float* lse);

}  // namespace annulus::kernels::cpu
