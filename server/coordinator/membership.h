// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "server/coordinator/event.h"
#include "server/coordinator/state.h"
#include "server/coordinator/turn.h"

namespace annulus::coordinator {

// Who lives. Each function is one part of Reduce.

void OnHello(Turn& turn, const WorkerHello& hello);
void OnHeartbeat(Turn& turn, const WorkerHeartbeat& heartbeat);
void OnGone(Turn& turn, const WorkerGone& gone);

// Loses the workers whose lease has lapsed and forgets those lost long ago.
void LapseLeases(Turn& turn);

// The live worker on this session, or nullptr. Anything heard from it renews its lease.
Worker* Hear(Turn& turn, SessionId session);

// Whether the worker that held this session still does.
bool IsLive(const State& state, const std::string& worker, SessionId session);

}  // namespace annulus::coordinator
