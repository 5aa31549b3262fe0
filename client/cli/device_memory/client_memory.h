// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "annulus/types.h"
#include "client/cli/device_memory/compute_device.h"
#include "client/cli/flags.h"

namespace annulus::cli {

// Where the tensors of a run lay, for its report.
struct MemoryUsed {
  std::string devices;  // which, described; "" for the host's memory
  std::string reason;   // why the host's; "" where nothing else could be meant
};

// Where the tensors of a run lie.
struct ClientMemory {
  // Devices of this process, and which of them holds each rank's rows; empty: the host's memory.
  std::vector<std::unique_ptr<ComputeDevice>> devices;
  std::vector<ComputeDevice*> of_rank;
  std::vector<std::string> workers;  // in rank order, where there are devices
  std::string reason;                // as of MemoryUsed
  int worker_devices = 1;            // that the group's workers compute on, as far as they say

  bool on_device() const { return !devices.empty(); }
  MemoryUsed Used() const;
};

// As --client-memory says. Where it says nothing: device memory if the workers of `group` compute
// on devices that this process can open by the same plugin and export memory of, else the host's,
// with the reason. Where it says "device" and that cannot be, the reason is the error: a usage
// error for flags that exclude each other, else FAILED_PRECONDITION.
absl::StatusOr<ClientMemory> ChooseClientMemory(const RunFlags& flags,
                                                const std::string& coordinator,
                                                const client::GroupInfo& group,
                                                absl::Time deadline);

}  // namespace annulus::cli
