// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace annulus::client {

// How one rank's part of a call ended.
struct RankStatus {
  int rank = 0;
  std::string worker;
  absl::Status status;
};

// Whether the failure is the coordinator's word on a lost or silent worker: nothing better comes.
bool IsAuthoritative(const absl::Status& status);

// Whether the failure says that the group's epoch is over (a worker lost, silent or unreachable).
bool EndsEpoch(const absl::Status& status);

// Whether the worker itself answered, so that nothing of the call runs there any more.
bool KnownQuiet(const absl::Status& status);

// The failure that says most about the cause, with rank and worker in its FaultInfo: the
// coordinator's verdict, then a worker's own refusal or error, then what a rank saw of its peer,
// then a worker that cannot be reached (reason WORKER_UNREACHABLE), then deadlines and what we
// cancelled ourselves. OK only if all are.
absl::Status ChooseVerdict(const std::vector<RankStatus>& ranks);

}  // namespace annulus::client
