// SPDX-License-Identifier: Apache-2.0
#include "server/ring/token_ranges.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace annulus::ring {
namespace {

constexpr size_t kMaxSpans = size_t{1} << 20;

// x with a * x = 1 (mod m); gcd(a, m) = 1.
int64_t InverseModulo(int64_t a, int64_t m) {
  int64_t r0 = m, r1 = a % m, x0 = 0, x1 = 1;
  while (r1 != 0) {
    const int64_t quotient = r0 / r1;
    r0 = std::exchange(r1, r0 - quotient * r1);
    x0 = std::exchange(x1, x0 - quotient * x1);
  }
  return ((x0 % m) + m) % m;
}

// Joins `next` to `*last` if the two make one progression.
bool TryJoin(const TokenRange& next, TokenRange* last) {
  if (last->stride == 1 && next.stride == 1 && next.begin <= last->end) {
    last->end = std::max(last->end, next.end);
    return true;
  }
  const int64_t gap = next.begin - (last->end - 1);
  const bool fits_last = last->count() == 1 || last->stride == gap;
  const bool fits_next = next.count() == 1 || next.stride == gap;
  // Two lone tokens a distance apart are left alone: as a range they read worse than as two.
  const bool lone = last->count() == 1 && next.count() == 1;
  if (gap <= 0 || lone || !fits_last || !fits_next) return false;
  *last = {last->begin, next.end, gap};
  return true;
}

}  // namespace

int64_t TokenCount(const TokenRanges& ranges) {
  int64_t count = 0;
  for (const TokenRange& range : ranges) count += range.count();
  return count;
}

TokenRange Canonical(const TokenRange& range) {
  const int64_t count = range.count();
  if (count == 0) return {0, 0, 1};
  return {range.begin, range.begin + (count - 1) * range.stride + 1, count == 1 ? 1 : range.stride};
}

bool Contains(const TokenRange& range, int64_t token) {
  return token >= range.begin && token < range.end && (token - range.begin) % range.stride == 0;
}

// Chinese remainders: x = a.begin + a.stride * i with x = b.begin (mod b.stride).
TokenRange Intersect(const TokenRange& a, const TokenRange& b) {
  const int64_t low = std::max(a.begin, b.begin);
  const int64_t end = std::min(a.end, b.end);
  if (low >= end) return {0, 0, 1};
  const int64_t gcd = std::gcd(a.stride, b.stride);
  if ((b.begin - a.begin) % gcd != 0) return {0, 0, 1};
  const int64_t modulus = b.stride / gcd;
  int64_t i = 0;
  if (modulus > 1) {
    const int64_t difference = ((b.begin - a.begin) / gcd % modulus + modulus) % modulus;
    i = static_cast<int64_t>(absl::int128(difference) *
                             InverseModulo(a.stride / gcd % modulus, modulus) % modulus);
  }
  const absl::int128 stride = absl::int128(a.stride) * modulus;
  absl::int128 first = absl::int128(a.begin) + absl::int128(a.stride) * i;
  if (first < low) first += (absl::int128(low) - first + stride - 1) / stride * stride;
  if (first >= end) return {0, 0, 1};
  const absl::int128 bounded = std::min<absl::int128>(stride, kMaxTokens);
  return Canonical({static_cast<int64_t>(first), end, static_cast<int64_t>(bounded)});
}

TokenRanges Intersect(const TokenRanges& a, const TokenRanges& b) {
  TokenRanges common;
  for (const TokenRange& x : a) {
    for (const TokenRange& y : b) common.push_back(Intersect(x, y));
  }
  return Normalise(std::move(common));
}

bool IsSubset(const TokenRanges& part, const TokenRanges& whole) {
  for (const TokenRange& range : part) {
    int64_t found = 0;
    for (const TokenRange& holder : whole) found += Intersect(range, holder).count();
    if (found != range.count()) return false;
  }
  return true;
}

TokenRanges Normalise(TokenRanges ranges) {
  for (TokenRange& range : ranges) range = Canonical(range);
  std::erase_if(ranges, [](const TokenRange& range) { return range.count() == 0; });
  std::sort(ranges.begin(), ranges.end(), [](const TokenRange& a, const TokenRange& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  TokenRanges joined;
  for (const TokenRange& range : ranges) {
    if (joined.empty() || !TryJoin(range, &joined.back())) joined.push_back(range);
  }
  return joined;
}

std::vector<int64_t> Positions(const TokenRanges& ranges) {
  std::vector<int64_t> positions;
  positions.reserve(static_cast<size_t>(TokenCount(ranges)));
  for (const TokenRange& range : ranges) {
    for (int64_t token = range.begin; token < range.end; token += range.stride) {
      positions.push_back(token);
    }
  }
  return positions;
}

absl::StatusOr<std::vector<RowSpan>> LocateRows(const TokenRanges& layout,
                                                const TokenRanges& tokens) {
  std::vector<RowSpan> spans;
  for (const TokenRange& range : tokens) {
    int64_t left = range.count();
    int64_t token = range.begin;
    while (left > 0) {
      int64_t row = 0;
      auto holder = layout.begin();
      for (; holder != layout.end() && !Contains(*holder, token); ++holder) row += holder->count();
      if (holder == layout.end()) {
        return absl::NotFoundError(absl::StrCat("token ", token, " is not among the ",
                                                TokenCount(layout), " tokens of the slot"));
      }
      const int64_t index = (token - holder->begin) / holder->stride;
      const int64_t run =
          holder->stride == range.stride ? std::min(left, holder->count() - index) : 1;
      if (spans.size() == kMaxSpans) {
        return absl::ResourceExhaustedError(
            absl::StrCat("tokens lie in more than ", kMaxSpans, " runs of rows"));
      }
      spans.push_back({row + index, run, token, run == 1 ? 1 : range.stride});
      left -= run;
      token += run * range.stride;
    }
  }
  return spans;
}

}  // namespace annulus::ring
