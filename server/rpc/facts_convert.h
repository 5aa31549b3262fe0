// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "annulus/v1/coordinator.pb.h"
#include "server/ring/topology/facts.h"

namespace annulus::rpc {

// What a worker says of its machine <-> the facts that a topology is decided on. Name, node and
// host id are the Hello's and stay empty here. Thread safe, no state.

v1::WorkerFacts FactsToProto(const ring::WorkerFacts& facts);

// INVALID_ARGUMENT names the field: a list or a text longer than facts may be, or text that is not
// printable. An enumerator of a newer version is taken as the least favourable one.
absl::StatusOr<ring::WorkerFacts> FactsFromProto(const v1::WorkerFacts& facts);

}  // namespace annulus::rpc
