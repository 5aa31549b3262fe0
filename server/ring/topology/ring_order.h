// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "server/ring/topology/facts.h"

namespace annulus::ring {

// Up to this many workers of a node the best order is searched for; up to the second, each rank
// takes the best neighbour left; beyond it their links are not compared.
inline constexpr size_t kSearchedPerNode = 8;
inline constexpr size_t kComparedPerNode = 64;

// Indices into `members` in rank order. Node-major: the ranks of a node are contiguous, nodes by
// name. Inside a node GPUs sit so that the hops of the inner rings (windows of `window` ranks, see
// plan.h) that stay in the node need the fewest links without peer access, then the fewest over
// PCIe, then the fewest over NVLink (workers of one GPU side by side); among equals by host, bus id
// and name. The outer ring joins equal places of the windows. The result depends on the set of
// members, not on their order.
std::vector<int> RingOrder(const std::vector<WorkerFacts>& members, int window);

}  // namespace annulus::ring
