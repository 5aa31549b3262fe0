// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "server/worker/memory_pool.h"
#include "server/worker/workspace.h"

namespace annulus::worker {

// Where the device has the tensors of a request: in the caller's own memory where it can work on
// that, else in a dense copy of this rank's rows in its own. A device that works on the host's
// memory has every tensor where it is, and a placement that is empty.
struct Placement {
  // Puts the copies, whose contents are undefined as yet, in the places of the caller's tensors in
  // `inputs`, and says where own K and V are sent from. RESOURCE_EXHAUSTED beyond the ledger's
  // limit, before anything is allocated.
  static absl::StatusOr<Placement> Create(AttendInputs* inputs, MemoryPool* pool);

  struct Moved {
    PlacedTensor host;    // the caller's
    PlacedTensor device;  // its `tokens` are the rank's rows
    bool input = false;   // else an output
    bool sent = false;    // sends may read the copy: it must be there before they are posted
  };
  std::vector<Moved> moved;
  Buffer memory;
};

}  // namespace annulus::worker
