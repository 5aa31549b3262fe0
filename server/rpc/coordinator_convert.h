// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "annulus/v1/coordinator.pb.h"
#include "server/coordinator/action.h"
#include "server/coordinator/event.h"
#include "server/coordinator/state.h"
#include "server/ring/plan.h"

namespace annulus::rpc {

// Coordinator protos <-> core. What comes in is bounded here: INVALID_ARGUMENT says which field,
// what was expected and what was got. No state; thread safe.

absl::StatusOr<coordinator::WorkerIdentity> IdentityFromProto(const v1::WorkerHello& hello);

// The event of any message but Hello. Texts that are only for people are cut; progress entries
// beyond 64 or with impossible names are left out.
absl::StatusOr<coordinator::Event> EventFromProto(coordinator::SessionId session,
                                                  const v1::WorkerMessage& message);

coordinator::GroupOptions OptionsFromProto(const v1::GroupOptions& options);

// The command for a Send action; nothing (false) for any other.
bool CommandToProto(const coordinator::Action& action, v1::WorkerCommand* command);

void GroupToProto(const coordinator::GroupView& view, v1::Group* group);
void WorkerToProto(const coordinator::Worker& worker, coordinator::TimeMs now,
                   v1::WorkerInfo* info);

// UNIMPLEMENTED, by name: an algorithm other than megatron_cp_algo, head ranges.
absl::StatusOr<ring::Spec> SpecFromProto(const v1::PlanSpec& spec);

}  // namespace annulus::rpc
