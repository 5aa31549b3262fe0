// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/plan.h"
#include "server/ring/topology/facts.h"

namespace annulus::ring {

struct TransportChoice {
  std::string
      name;  // of the plugin; "": no hop of this level, or the workers said nothing of theirs
  std::string reason;
};

// A transport that the hops of a level may take, as far as that level alone is concerned.
struct TransportCandidate {
  std::string name;
  std::string reason;
  bool asked = false;
  // Memory that it moves, of every member that tells; both: not told.
  bool host_memory = true;
  bool device_memory = true;
};

// The transports of one level, the best first, and those that were passed over for them, with why.
struct TransportRanking {
  std::vector<TransportCandidate> candidates;  // none: no hop of this level, or nothing told
  std::string none_because;
  std::string passed_over;  // "not cuipc: ...", for the words of a choice; ""
};

// For all hops inside nodes (kInner) or between nodes (kOuter) of a group whose members are
// `members`, on the nodes numbered `nodes`. In this order of preference:
//   cuipc  one host, all GPUs, every two of a node are one GPU or reach each other's memory, and
//          their processes may open it;
//   nccl   all GPUs, no two ranks on one GPU (NCCL refuses that), one version of the library;
//   host   everything else, through host memory; where not all have it, what all do have, by name.
// A link that is not known is not relied upon. A version that nobody tells is taken to fit.
//
// `asked` forces a transport. FAILED_PRECONDITION (TRANSPORT_UNAVAILABLE) with what is missing if
// it cannot be had or the level has no hop to take it, or if there is none that all members have
// loaded.
absl::StatusOr<TransportRanking> RankTransports(Level level,
                                                const std::vector<WorkerFacts>& members,
                                                const std::vector<int>& nodes,
                                                const std::string& asked);

}  // namespace annulus::ring
