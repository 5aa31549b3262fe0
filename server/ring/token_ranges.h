// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/plan.h"

// Algebra of token ranges. A range is an arithmetic progression, so intersections are exact for any
// strides. Begins and ends lie in 0..2^40 and strides in 1..2^40.
namespace annulus::ring {

inline constexpr int64_t kMaxTokens = int64_t{1} << 40;

// The same tokens with end = last + 1, and stride 1 where at most one token is left; {0, 0, 1} if
// none.
TokenRange Canonical(const TokenRange& range);

bool Contains(const TokenRange& range, int64_t token);

TokenRange Intersect(const TokenRange& a, const TokenRange& b);
// The tokens of both lists, each of which names a token at most once; normalised.
TokenRanges Intersect(const TokenRanges& a, const TokenRanges& b);

// Whether every token of `part` is one of `whole`. `whole` names a token at most once.
bool IsSubset(const TokenRanges& part, const TokenRanges& whole);

// Sorted by begin, canonical, no empty range, and a range that continues the one before it joined
// to it; overlapping ranges of stride 1 become their union.
TokenRanges Normalise(TokenRanges ranges);

// Every token in list order. For small lists: tests and tables.
std::vector<int64_t> Positions(const TokenRanges& ranges);

// `count` consecutive rows from `row` on that hold the tokens position, position + stride, ...
struct RowSpan {
  int64_t row = 0;
  int64_t count = 0;
  int64_t position = 0;
  int64_t stride = 1;
  friend bool operator==(const RowSpan&, const RowSpan&) = default;
};

// The rows of `tokens`, in their order, in a buffer whose rows hold `layout` in its order.
// NotFound: a token that the layout does not hold. ResourceExhausted: more than 2^20 spans.
absl::StatusOr<std::vector<RowSpan>> LocateRows(const TokenRanges& layout,
                                                const TokenRanges& tokens);

}  // namespace annulus::ring
