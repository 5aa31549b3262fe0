// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "server/coordinator/event.h"
#include "server/coordinator/state.h"
#include "server/coordinator/turn.h"

namespace annulus::coordinator {

// Calls of clients and those that wait. Each function is one part of Reduce.

void OnEnsureGroup(Turn& turn, const EnsureGroup& ensure);
void OnDeleteGroup(Turn& turn, const DeleteGroup& remove);
void OnCallCancelled(Turn& turn, const CallCancelled& cancelled);

// Answers those whose deadline has come.
void LapseCalls(Turn& turn);

// Answers the calls that wait for an epoch below the READY group's.
void AnswerReadyCalls(Turn& turn, const Group& group);

// Answers every call that waits for the group with an error.
void AnswerGroupCalls(Turn& turn, const std::string& group, const absl::Status& status);

// The same, and forgets the group if it was never READY: nobody wants it any more.
void RefuseGroupCalls(Turn& turn, const std::string& group, const absl::Status& status);

}  // namespace annulus::coordinator
