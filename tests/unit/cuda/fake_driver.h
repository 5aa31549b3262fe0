// SPDX-License-Identifier: Apache-2.0
#pragma once

// The driver of the tests: device memory is the host's, kernels run on the block emulator, and
// every failure of a CUDA call can be asked for. Linked in the place of
// kernels/cuda/runtime_driver.cc.

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/driver.h"

namespace annulus::kernels::cuda {

struct FakeLaunch {
  KernelId kernel;
  int64_t blocks;
};

// What the drivers opened from now on do, and what was seen. One for the whole program: reset it at
// the start of a test.
struct FakeCuda {
  DeviceProperties properties = {"Fake", 9, 0, 132, int64_t{80} << 30, 227 << 10, "0000:3b:00.0"};
  int device_count = 1;
  bool run_kernels = true;
  uint32_t schedule_seed = 1;  // of the Hopper emulator
  int resident_blocks = 1;     // of a Hopper grid at a time
  // Calls to fail, by the name of the driver's method, with this status.
  std::set<std::string> failing;
  absl::Status failure = absl::InternalError("the device is gone");
  int polls_until_reached = 0;  // Reached says no so often

  std::vector<FakeLaunch> launches;
  std::set<void*> memory, streams, events;  // alive
  std::set<void*> registered;               // host memory, alive
  std::multiset<void*> imported;            // alive
  int drivers = 0;                          // alive
};

FakeCuda& Fake();

}  // namespace annulus::kernels::cuda
