// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/coordinator/event.h"
#include "server/coordinator/state.h"
#include "server/coordinator/turn.h"

namespace annulus::coordinator {

// The life of groups. Each function is one part of Reduce.

void OnPrepared(Turn& turn, const GroupPrepared& prepared);
void OnConnected(Turn& turn, const GroupConnected& connected);

// Forms every waiting group that has enough workers and whose time has come.
void FormGroups(Turn& turn);

// Ends the epochs whose members did not answer in time.
void LapsePhases(Turn& turn);

// Ends the epoch of the group's member `worker`; nothing if it is none.
void EndEpochForWorker(Turn& turn, const std::string& group, const std::string& worker,
                       FaultReason reason, const std::string& message);

// Ends the epoch: one verdict to every member that lives, then WAITING. Fills in the verdict's
// group, epoch, worker and step from its culprit_rank.
void EndEpoch(Turn& turn, Group& group, Verdict verdict);

// Remembers how far a member has come, for the verdict on it.
void NoteStep(State& state, const std::string& worker, const Progress& progress);

// Forgets the group: members let go, waiting calls end with `status`.
void RemoveGroup(Turn& turn, const std::string& name, const absl::Status& status);

// The group and the rank that this session has in it at this epoch; rank -1 and a stale message
// counted if none.
struct Seat {
  Group* group = nullptr;
  int rank = -1;
};
Seat FindSeat(Turn& turn, SessionId session, const std::string& group, uint64_t epoch);

}  // namespace annulus::coordinator
