// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "server/coordinator/state.h"
#include "server/coordinator/types.h"

namespace annulus::coordinator {

// Who is to sit where and over what their hops go (see topology.h). Workers that were not blamed go
// before blamed ones, idle ones before those in other groups; explicit members sit as asked.
// UNAVAILABLE, reason NOT_ENOUGH_WORKERS, with have and need; FAILED_PRECONDITION, reason
// TRANSPORT_UNAVAILABLE, where the members have no transport in common or not the one asked for, or
// those asked for do not go together (see transport_pair.h).
absl::StatusOr<SharedTopology> PlaceMembers(const State& state, const Group& group, TimeMs now);

}  // namespace annulus::coordinator
