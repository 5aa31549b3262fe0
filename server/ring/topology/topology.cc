// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/topology.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status_macros.h"
#include "server/ring/plan_limits.h"
#include "server/ring/topology/ring_order.h"

namespace annulus::ring {
namespace {

absl::Status CheckInput(const std::vector<WorkerFacts>& members, const TopologyWish& wish) {
  const int size = static_cast<int>(members.size());
  if (size < 1 || size > kMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("workers: expected 1 to ", kMaxRanks, ", got ", members.size()));
  }
  std::set<std::string> names;
  for (const WorkerFacts& facts : members) {
    if (!names.insert(facts.worker).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("workers: expected each name once, got '", facts.worker, "' twice"));
    }
  }
  if (wish.window_size == 0 || (wish.window_size > 0 && size % wish.window_size == 0)) {
    return absl::OkStatus();
  }
  std::vector<int> divisors;
  for (int d = 1; d <= size; ++d) {
    if (size % d == 0) divisors.push_back(d);
  }
  return absl::InvalidArgumentError(absl::StrCat("window size: expected a divisor of ", size, " (",
                                                 absl::StrJoin(divisors, ", "), "), got ",
                                                 wish.window_size));
}

std::vector<int> NodesOf(const std::vector<WorkerFacts>& ranks, const TopologyWish& wish) {
  if (wish.ranks_per_node <= 0) return NodeNumbers(ranks);
  std::vector<int> nodes(ranks.size());
  for (size_t rank = 0; rank < nodes.size(); ++rank) {
    nodes[rank] = static_cast<int>(rank) / wish.ranks_per_node;
  }
  return nodes;
}

std::vector<WorkerFacts> InOrder(const std::vector<WorkerFacts>& members,
                                 const std::vector<int>& order) {
  std::vector<WorkerFacts> ranks;
  ranks.reserve(order.size());
  for (const int index : order) ranks.push_back(members[static_cast<size_t>(index)]);
  return ranks;
}

}  // namespace

int Topology::InnerNext(int rank) const {
  const int first = rank / window.window_size * window.window_size;
  return first + (rank - first + 1) % window.window_size;
}

int Topology::OuterNext(int rank) const { return (rank + window.window_size) % size(); }

Level Topology::LevelOf(int a, int b) const {
  return seats[static_cast<size_t>(a)].node == seats[static_cast<size_t>(b)].node ? Level::kInner
                                                                                  : Level::kOuter;
}

absl::StatusOr<Topology> DecideTopology(const std::vector<WorkerFacts>& members,
                                        const TopologyWish& wish) {
  ANNULUS_RETURN_IF_ERROR(CheckInput(members, wish));
  // Ranks of a node are contiguous whatever the window: it is chosen by any such order, and then
  // decides which hops count when the node's own order is sought.
  std::vector<WorkerFacts> ranks =
      wish.keep_order ? members : InOrder(members, RingOrder(members, /*window=*/1));
  Topology topology;
  topology.window = ChooseWindow(NodesOf(ranks, wish));
  if (wish.window_size > 0 && wish.window_size != topology.window.window_size) {
    topology.window = {wish.window_size, absl::StrCat("as given; ", topology.window.window_size,
                                                      " would suit: ", topology.window.reason)};
  }
  if (!wish.keep_order) ranks = InOrder(members, RingOrder(members, topology.window.window_size));
  const std::vector<int> nodes = NodesOf(ranks, wish);
  ANNULUS_ASSIGN_OR_RETURN(
      TransportPair transports,
      ChooseTransports(ranks, nodes, topology.window.window_size, wish.transports));
  topology.inner = std::move(transports.inner);
  topology.outer = std::move(transports.outer);
  std::vector<NicChoice> nics = AssignNics(ranks);
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    topology.seats.push_back({std::move(ranks[rank]), nodes[rank], std::move(nics[rank])});
  }
  return topology;
}

}  // namespace annulus::ring
