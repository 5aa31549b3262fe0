// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/bench/kernel_bench.h"
#include "client/cli/bench/statistics.h"
#include "client/cli/flags.h"
#include "client/cli/ring_job.h"
#include "kernels/compute_plugin.h"

namespace annulus::cli::bench {

// The forward or the backward of a ring over all repetitions.
struct RingPhase {
  ring::Direction direction = ring::Direction::kForward;
  double flops = 0;
  Spread wall_seconds;  // of the call, as the client sees it
  Spread rate;          // FLOP/s of all ranks together
  // Only where the device has ceilings:
  double share = 0;                 // rate.max of the best of the ceiling
  Spread window_share;              // each rate of the ceiling right before and after it
  double overlap_ratio = 0;         // median
  double exposed_comm_seconds = 0;  // median, mean over the ranks
  // The same attention called once in one piece, on as many threads as all workers together have;
  // where they compute on several devices, its time on one of them divided by their number.
  Spread kernel_seconds;
  Spread efficiency;  // kernel_seconds / wall_seconds of the same repetition
};

struct RingBenchResult {
  CeilingRates ceiling;  // of as many threads as all workers together have; rates 0: it has none
  MemoryUsed memory;
  int devices = 1;  // that the workers compute on
  std::vector<RingPhase> phases;
};

// Runs the job flags.repeat times on its ring, and once before that does not count. Between the
// repetitions, while the workers stand still, a device of this process runs the multiply-add
// ceiling, where it has one, and the same attention in one piece, both on workers x
// `worker_threads` threads.
absl::StatusOr<RingBenchResult> RunRingBench(const annulusComputeV1* api, const RunFlags& flags,
                                             int worker_threads, RingJob* job);

// As JSON, schema "annulus.bench.ring.v1": rates are per second, shares and ratios of 1.
std::string RingJson(const RunFlags& flags, int worker_threads, const Problem& problem,
                     const RingBenchResult& result);

// For people.
std::string RingText(const RunFlags& flags, int worker_threads, const Problem& problem,
                     const RingBenchResult& result);

}  // namespace annulus::cli::bench
