// SPDX-License-Identifier: Apache-2.0
#include "server/ring/mask.h"

#include <algorithm>

#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

// Sum of floor((a * i + b) / m) over i = 0..n-1, by the Euclidean algorithm.
absl::uint128 FloorSum(absl::uint128 n, absl::uint128 m, absl::uint128 a, absl::uint128 b) {
  absl::uint128 sum = 0;
  while (n > 0) {
    sum += n * (n - 1) / 2 * (a / m) + n * (b / m);
    a %= m;
    b %= m;
    const absl::uint128 top = a * n + b;
    n = top / m;
    b = top % m;
    std::swap(m, a);
  }
  return sum;
}

int64_t CeilDivide(int64_t a, int64_t b) { return a <= 0 ? 0 : (a + b - 1) / b; }

// Pairs with key - (query + offset) <= bound.
absl::uint128 PairsUpTo(int64_t bound, int64_t offset, const TokenRange& q, const TokenRange& kv) {
  const int64_t queries = q.count(), keys = kv.count();
  // Query i sees floor(x_i / stride) + 1 keys, clamped to 0..keys, with x_i = x_0 + i * q.stride.
  const int64_t x0 = q.begin + offset + bound - kv.begin;
  const int64_t first = std::min(queries, CeilDivide(-x0, q.stride));
  const int64_t saturated = std::min(queries, CeilDivide((keys - 1) * kv.stride - x0, q.stride));
  const int64_t rising = saturated - first;
  absl::uint128 pairs = absl::uint128(queries - saturated) * keys;
  if (rising > 0) {
    pairs += absl::uint128(rising) + FloorSum(rising, kv.stride, q.stride, x0 + first * q.stride);
  }
  return pairs;
}

}  // namespace

bool Sees(const Mask& mask, int64_t causal_offset, int64_t query, int64_t key) {
  const int64_t distance = key - (query + causal_offset);
  if (mask.kind == MaskKind::kCausal && distance > 0) return false;
  return mask.window_left < 0 || distance >= -mask.window_left;
}

absl::uint128 VisiblePairs(const Mask& mask, int64_t causal_offset, const TokenRange& q,
                           const TokenRange& kv) {
  if (q.count() == 0 || kv.count() == 0) return 0;
  absl::uint128 pairs = mask.kind == MaskKind::kCausal
                            ? PairsUpTo(0, causal_offset, q, kv)
                            : absl::uint128(q.count()) * absl::uint128(kv.count());
  if (mask.window_left >= 0) pairs -= PairsUpTo(-mask.window_left - 1, causal_offset, q, kv);
  return pairs;
}

MaskCase CaseOf(const Mask& mask, int64_t causal_offset, const TokenRange& q,
                const TokenRange& kv) {
  const absl::uint128 all = absl::uint128(q.count()) * absl::uint128(kv.count());
  const absl::uint128 visible = VisiblePairs(mask, causal_offset, q, kv);
  if (visible == 0) return MaskCase::kEmpty;
  return visible == all ? MaskCase::kFull : MaskCase::kPartial;
}

MaskCase CaseOf(const Mask& mask, int64_t causal_offset, const TokenRanges& q,
                const TokenRanges& kv) {
  bool any_visible = false, any_hidden = false;
  for (const TokenRange& queries : q) {
    for (const TokenRange& keys : kv) {
      if (queries.count() == 0 || keys.count() == 0) continue;
      const MaskCase tile = CaseOf(mask, causal_offset, queries, keys);
      any_visible |= tile != MaskCase::kEmpty;
      any_hidden |= tile != MaskCase::kFull;
      if (any_visible && any_hidden) return MaskCase::kPartial;
    }
  }
  return any_visible ? MaskCase::kFull : MaskCase::kEmpty;
}

double UnmaskedCells(const Mask& mask, int64_t query_length, int64_t kv_length) {
  return static_cast<double>(VisiblePairs(mask, CausalOffset(query_length, kv_length),
                                          {0, query_length, 1}, {0, kv_length, 1}));
}

}  // namespace annulus::ring
