// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "server/worker/engine.h"

namespace annulus::worker {

// Where a rank stood when its request failed.
struct FailurePoint {
  int rank = 0;
  int step = 0;
  int peer = -1;  // whose transfer it waited for; -1: none
  std::string request_id;
};

// UNAVAILABLE in the words of the coordinator's verdict, with rank, worker, step, peer and epoch in
// its FaultInfo: "rank 2 (worker w2) was lost at step 3 while rank 1 waited for its KV (group g,
// epoch 5)".
absl::Status VerdictStatus(const FaultVerdict& verdict, const FailurePoint& at);

// The same from what this rank saw itself, while there is no verdict. `code` and `reason` say what;
// `suspect` may be -1; `detail` is what the transport or device said.
absl::Status LocalStatus(absl::StatusCode code, const std::string& reason, int suspect,
                         const GroupAssignment& group, const FailurePoint& at,
                         const std::string& detail);

}  // namespace annulus::worker
