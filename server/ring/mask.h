// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/numeric/int128.h"
#include "server/ring/plan.h"

// Masks as functions of absolute positions. With d = key - (query + causal_offset) and
// causal_offset = kv_length - query_length (bottom-right), a query sees a key when
//   causal:            d <= 0
//   window_left >= 0:  d >= -window_left
// and always under a full mask without a window.
namespace annulus::ring {

inline int64_t CausalOffset(int64_t query_length, int64_t kv_length) {
  return kv_length - query_length;
}

bool Sees(const Mask& mask, int64_t causal_offset, int64_t query, int64_t key);

// Pairs (query, key) of a tile of which the query sees the key. Exact for any strides, in
// logarithmic time.
absl::uint128 VisiblePairs(const Mask& mask, int64_t causal_offset, const TokenRange& q,
                           const TokenRange& kv);

// kFull: all pairs of the tile are visible; kEmpty: none, or no pair; else kPartial.
MaskCase CaseOf(const Mask& mask, int64_t causal_offset, const TokenRange& q, const TokenRange& kv);
MaskCase CaseOf(const Mask& mask, int64_t causal_offset, const TokenRanges& q,
                const TokenRanges& kv);

// Unmasked cells A of the whole attention: a forward is 4 * query_heads * A * head_dim FLOPs, a
// backward 2.5 times that. Exact up to 2^53.
double UnmaskedCells(const Mask& mask, int64_t query_length, int64_t kv_length);

}  // namespace annulus::ring
