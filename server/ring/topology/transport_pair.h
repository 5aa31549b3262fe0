// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/topology/facts.h"
#include "server/ring/topology/transport_choice.h"

namespace annulus::ring {

struct TransportPair {
  TransportChoice inner;
  TransportChoice outer;
};

// What is wished of the transports of a group.
struct TransportWish {
  std::string inner;  // by name; "": the best that can be had
  std::string outer;
  // Whether links are emulated, which takes one transport for both levels, of the host's memory.
  bool emulated = false;
};

// The transports inside and between nodes: of each level the best of RankTransports, as far as the
// two go together. Two that differ need a memory that both move, as what comes from a peer goes on
// to another. NCCL beside another one serves whole communicators: every window, and the ranks of
// equal place in the windows, have to lie on one node or each on another.
//
// Where the best two do not go together, the one inside nodes gives way first, and the words of the
// choice say why. A transport of GPU memory beside one that moves the host's alone would carry
// nothing but that: it is taken only if it was asked for.
//
// `ranks` in rank order, on the nodes numbered `nodes`; `window_size` divides their number.
// FAILED_PRECONDITION (TRANSPORT_UNAVAILABLE): as RankTransports, or no two go together.
absl::StatusOr<TransportPair> ChooseTransports(const std::vector<WorkerFacts>& ranks,
                                               const std::vector<int>& nodes, int window_size,
                                               const TransportWish& wish);

}  // namespace annulus::ring
