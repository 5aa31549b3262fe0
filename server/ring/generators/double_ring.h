// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/ring/plan.h"

// Double-ring attention (LoongTrain, Gu et al.: arXiv 2406.18485), with a backward whose gradient
// sums never stand exposed. N ranks make n = N / w windows; a rank is (W, i) = W * w + i, indices
// modular. Inner hops stay in a window; outer hops go to the same place of the next window.
//
// Forward. In round j = 0..n-1 and inner step t = 0..w-1 rank (W, i) attends the KV of owner
// (W - j, i - t). The block held when a round begins takes its outer hop to (W + 1, i) during the
// whole round, beside the inner hops to (W, i + 1): n (w - 1) inner and n - 1 outer hops.
//
// Backward, the forward in reverse: j = n-1..0, t = w-1..0, from the block held last in the
// forward, that of owner (W + 1, i + 1). Inner hops go to (W, i - 1), outer hops to (W - 1, i).
// Round 0 works on the window's own KV and gets its first block by an inner hop from the owner, so
// only n - 2 outer hops of KV are left.
//
// dK, dV are split in two sums. The partial of a window follows the block's inner hops, a step
// behind, and ends at (V + j, k) for owner (V, k). There the running sum of the earlier windows
// arrives at the same time; together they take the outer hop to (V + j - 1, k) during the whole
// next round. n (w - 1) inner and n - 1 outer hops; the last inner one hides under the last
// compute.
//
// `spec` must have been validated (planner.h) and 1 < w < N.
namespace annulus::ring {

Plan DoubleRingForward(const Spec& spec);
Plan DoubleRingBackward(const Spec& spec);

}  // namespace annulus::ring
