// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "server/ring/plan.h"

namespace annulus::ring {

// The tokens of a sequence of `length` that each of `ranks` ranks owns, normalised. Any length >=
// 1: pieces differ by at most one token and may be empty. Queries and KV are dealt separately.
//   contiguous  rank r owns the r-th of N chunks
//   zigzag      rank r owns chunks r and 2N-1-r of 2N, which balances a causal mask
//   striped     rank r owns the tokens i with i mod N = r, as one strided range
std::vector<TokenRanges> Partition(Layout layout, int64_t length, int ranks);

}  // namespace annulus::ring
