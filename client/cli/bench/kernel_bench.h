// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/bench/attention_work.h"
#include "client/cli/bench/statistics.h"
#include "kernels/compute_plugin.h"

namespace annulus::cli::bench {

// Every shape in every direction on every number of threads.
struct KernelBenchOptions {
  std::vector<AttentionShape> shapes;
  std::vector<ring::Direction> directions;
  std::vector<int> threads;
  std::string compute_provider;  // "": the fastest
  int rounds = 1;
  double min_seconds = 0;  // a window is as many calls as it takes to last so long
  uint64_t seed = 0;

  bool backward() const;
};

// The best rates of a device over the whole run.
struct CeilingRates {
  int threads = 0;
  std::string description;
  double multiply_add = 0;  // FLOP/s
  double memory_read = 0;   // bytes/s
};

struct KernelResult {
  AttentionShape shape;
  ring::Direction direction = ring::Direction::kForward;
  int threads = 0;
  double flops = 0;     // of one call
  double kv_bytes = 0;  // likewise
  Spread rate;          // FLOP/s of the windows
  double share = 0;     // rate.max of the ceiling's best
  // Rate of each window of the ceiling right before and after it: what a neighbour takes from both
  // cancels out.
  Spread window_share;
  double limit = 0;  // MemoryLimit
};

struct KernelBenchResult {
  std::vector<CeilingRates> ceilings;  // one a number of threads
  std::vector<KernelResult> cases;
};

// In each round all cases take turns, so that a slow spell of the machine falls on all alike.
// FLOP/s count what the definition asks for (Flops). With a bar on a terminal. Usage errors: what
// the device does not support.
absl::StatusOr<KernelBenchResult> RunKernelBench(const annulusComputeV1* api,
                                                 const KernelBenchOptions& options);

}  // namespace annulus::cli::bench
