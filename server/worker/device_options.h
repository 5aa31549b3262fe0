// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace annulus::worker {

// Which device of a compute plugin a worker opens, and how: annulusComputeOptions with its
// defaults.
struct DeviceOptions {
  int ordinal = 0;
  int threads = 1;        // CPU: compute threads, >= 1
  std::vector<int> cpus;  // CPU: none, or a processor for each thread to be bound to
  std::string provider;   // which kernels of the plugin; empty: the fastest there
  int spare_units = 0;    // compute units that kernels leave to transfers
  bool deterministic = false;
};

}  // namespace annulus::worker
