// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "server/apps/worker_flags.h"
#include "server/transport/transport_plugin.h"

namespace annulus::apps {

// The tables of the transport plugins, in the order of the flags, each of another name. One that
// cannot be loaded is an error, or, where it is optional, reported in the log and left out.
// INVALID_ARGUMENT where two bear one name; NOT_FOUND where none is left.
absl::StatusOr<std::vector<const annulusTransportV1*>> LoadTransports(
    const std::vector<WorkerFlags::TransportFlag>& flags);

}  // namespace annulus::apps
