// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace annulus::transport::nccl {

// What may be chosen through the environment; README.md says why.
struct Settings {
  // ANNULUS_NCCL_MAX_CTAS, 1..64: thread blocks, and so multiprocessors, of a communicator.
  int max_ctas = 8;
  // ANNULUS_NCCL_NET_CHANNELS, 1..32: channels to a peer across the network.
  int network_channels = 4;
  // ANNULUS_NCCL_ABORT_SECONDS, 0.01..60: how long NCCL may take to stop or to free a communicator
  // before it is left behind, and how long a transfer that has started may run past its deadline.
  int64_t abort_ns = 1'000'000'000;
  // ANNULUS_NCCL_PROFILER, 0 or 1: stamps by NCCL's profiler, which this library then is.
  bool profiler = false;

  // What is out of its range or no number is left at its default.
  static Settings FromEnvironment();
};

}  // namespace annulus::transport::nccl
