// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/coordinator/state.h"
#include "server/coordinator/types.h"

namespace annulus::coordinator {

// Who is to sit where: worker names in rank order, ordered by node, then name. Workers that were
// not blamed go before blamed ones, idle ones before those in other groups. Explicit members sit as
// asked. UNAVAILABLE, reason NOT_ENOUGH_WORKERS, with have and need.
absl::StatusOr<std::vector<std::string>> ChooseMembers(const State& state, const Group& group,
                                                       TimeMs now);

}  // namespace annulus::coordinator
