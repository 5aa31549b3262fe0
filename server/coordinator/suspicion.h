// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/coordinator/event.h"
#include "server/coordinator/turn.h"

namespace annulus::coordinator {

// Faults that members report. Each function is one part of Reduce.

// A rank that reports itself is believed at once; a report about another opens a suspicion.
void OnFaultReport(Turn& turn, const FaultReport& report);

// Decides the suspicions whose time has come: every member has beaten since, or a lease and a bit
// has passed.
void DecideSuspicions(Turn& turn);

}  // namespace annulus::coordinator
