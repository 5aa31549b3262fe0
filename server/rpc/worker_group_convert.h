// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "annulus/v1/coordinator.pb.h"
#include "server/worker/engine.h"

namespace annulus::rpc {

// What the coordinator and a worker tell each other about groups <-> the engine's types. Thread
// safe, no state.

// INVALID_ARGUMENT names the field: a rank outside the group, members that are not one per rank in
// order, a window that does not divide the group, a link model that is not finite and >= 0.
absl::StatusOr<worker::GroupAssignment> AssignmentFromProto(const v1::PrepareGroup& prepare);

// INVALID_ARGUMENT: a handle longer than the 128 bytes that a transport may have, or outer handles
// of some ranks alone. Shorter ones are padded with zeros.
absl::StatusOr<std::vector<worker::RankHandles>> HandlesFromProto(const v1::ConnectGroup& connect);
std::string HandleToBytes(const annulusTransportHandle& handle);

worker::FaultVerdict VerdictFromProto(const v1::GroupFault& fault);
v1::FaultReport ObservationToProto(const worker::FaultObservation& observation);
v1::RequestProgress ProgressToProto(const worker::Progress& progress);

}  // namespace annulus::rpc
