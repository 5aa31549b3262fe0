// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/ring/plan.h"

// Ring Attention (Liu, Zaharia, Abbeel: arXiv 2310.01889). KV blocks go round a ring of N ranks
// while every rank attends the block it holds.
//
// Forward. In step s rank r holds the KV of owner r - s and sends it on to r + 1: N - 1 hops of KV.
//
// Backward, the forward in reverse. It starts from the KV held last in the forward, that of owner r
// + 1 (resident, or fetched from its owner in a first step of its own), and hops go to r - 1. The
// last block is a rank's own, so N - 2 hops of KV remain. The gradient of a block follows the
// block: what one step computed is sent in the next and added to what the receiver computed
// meanwhile, which makes N - 1 hops, the last of which hides under the last compute and ends at the
// owner.
//
// `spec` must have been validated (planner.h); its window_size only names the plan.
namespace annulus::ring {

Plan RingForward(const Spec& spec);
Plan RingBackward(const Spec& spec);

}  // namespace annulus::ring
