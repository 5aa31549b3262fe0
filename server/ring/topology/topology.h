// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/topology/facts.h"
#include "server/ring/topology/nic_assignment.h"
#include "server/ring/topology/transport_pair.h"
#include "server/ring/topology/window_choice.h"

// Who sits where in a ring, and over what its hops go, decided from what the workers say of
// themselves.
//
//   ANNULUS_ASSIGN_OR_RETURN(const Topology topology, DecideTopology(facts, {}));
//   for (const Seat& seat : topology.seats) ... seat.facts.worker, seat.nic.nic ...
//   topology.inner.name, topology.inner.reason
//
// The same facts and wishes give the same topology, in whatever order the facts come.
namespace annulus::ring {

// What a user may ask for. The defaults leave everything to the facts.
struct TopologyWish {
  int window_size = 0;      // 0: ChooseWindow
  bool keep_order = false;  // the facts come in rank order
  int ranks_per_node = 0;   // 0: by the workers' nodes; else rank r counts as on node r / this
  TransportWish transports;
};

// One rank.
struct Seat {
  WorkerFacts facts;
  int node = 0;  // number of its node
  NicChoice nic;
};

struct Topology {
  std::vector<Seat> seats;  // in rank order
  WindowChoice window;
  TransportChoice inner;
  TransportChoice outer;

  int size() const { return static_cast<int>(seats.size()); }
  // The next rank of the inner ring, and the same place in the next window; the rank itself where
  // there is no other.
  int InnerNext(int rank) const;
  int OuterNext(int rank) const;
  // Whether a hop between the two ranks stays in a node, so that the inner transport carries it.
  Level LevelOf(int a, int b) const;
};

// INVALID_ARGUMENT: no workers, more than kMaxRanks, a worker twice, or a window that does not
// divide their number (with its divisors). FAILED_PRECONDITION: as ChooseTransports.
absl::StatusOr<Topology> DecideTopology(const std::vector<WorkerFacts>& members,
                                        const TopologyWish& wish);

}  // namespace annulus::ring
