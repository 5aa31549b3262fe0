// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/coordinator/state.h"

namespace annulus::coordinator {

struct Blame {
  int rank = 0;
  FaultReason reason = FaultReason::kPeerUnreachable;
  std::string message;
};

// Whom the reports of a suspicion point at. Each report starts at its suspect (or at whom the
// reporter waits for) and follows, by the last heartbeats, who waits for whom: a rank that waits is
// a symptom. The chain ends at a rank that waits for nobody, or in a circle, where the rank with
// the least progress is to blame. Among reports that disagree the rank with the least progress,
// then the lowest. `group` must have a suspicion with at least one report.
Blame FindCulprit(const State& state, const Group& group);

}  // namespace annulus::coordinator
