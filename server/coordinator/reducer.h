// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "server/coordinator/action.h"
#include "server/coordinator/event.h"
#include "server/coordinator/state.h"
#include "server/coordinator/types.h"

namespace annulus::coordinator {

// The whole behaviour of the coordinator: changes `state` by `event` at time `now` and returns what
// is to be done, in order. No I/O, no clock, no randomness: the same calls give the same answers.
// `now` must not go back.
//
// Membership. A worker is live from its Hello to its stream's end, its lease's lapse or the Hello
// of a newer process of its name. Names are unique; a displaced incarnation is refused as long as
// its successor lives. A worker that comes back after its loss is a new one; its groups have gone
// on.
//
// Groups. WAITING until enough workers live, PREPARING until all members have opened their
// transports, CONNECTING until all have connected, READY. Any member's loss or fault ends the
// epoch: every surviving member hears one verdict, and the group forms anew at a higher epoch.
// Epochs are never used twice. A group that was never READY goes when nobody waits for it any more.
//
// Blame. Certain evidence (stream end, lapsed lease, a rank that reports itself) decides at once.
// A report about another rank waits until it is clear that no lease is about to lapse, at most
// lease + suspicion_extra, and then follows who waits for whom to the rank that holds the others
// up.
//
// Time. A gap between events beyond pause_gap is this process's own pause: leases and deadlines of
// others move by it.
std::vector<Action> Reduce(const Settings& settings, State& state, const Event& event, TimeMs now);

}  // namespace annulus::coordinator
