// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "server/ring/topology/facts.h"

namespace annulus::ring {

struct NicChoice {
  std::string nic;  // "": none
  std::string reason;
};

// More GPUs on a node than this are given no adapter.
inline constexpr size_t kAssignedGpusPerNode = 64;

// The adapter that each member's hops to other nodes should take, in the order of `members`. Per
// node, the fastest adapters that all its GPUs see are dealt to the GPUs so that no two adapters
// differ by more than one GPU and, of all such deals, the GPUs are nearest to theirs (minimum cost
// assignment, Kuhn 1955); among equals neighbours by bus id share, adapters by name. Workers of one
// GPU have its adapter. CPU workers have none: their traffic goes where the host routes it.
std::vector<NicChoice> AssignNics(const std::vector<WorkerFacts>& members);

}  // namespace annulus::ring
