// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

inline constexpr int32_t kMaxRanks = 16;
inline constexpr int kNoDevice = 77;  // exit code of a rank that found no GPU

// What the processes of a group share beside their transports.
struct Common {
  pthread_barrier_t barrier;
  std::array<annulusTransportHandle, kMaxRanks> handles;
  std::array<double, kMaxRanks> seconds;  // for the ranks to report
};

// A rank in its process: connected, with a barrier across all.
struct RankContext {
  const annulusTransportV1* table = nullptr;
  annulusTransport* transport = nullptr;
  int32_t rank = 0;
  int32_t size = 0;
  Common* common = nullptr;

  void Barrier() const { pthread_barrier_wait(&common->barrier); }
};

// Forks `size` ranks, each a process that loads the transport by `table`, opens it on GPU 0,
// connects and runs `body`; its result is the process's exit code. This process must not have used
// CUDA, and does not here.
//
// Exit codes by rank; kNoDevice everywhere where there is no GPU; -1 for a rank that was killed.
std::vector<int> RunRanks(int32_t size, const std::function<const annulusTransportV1*()>& table,
                          const std::function<int(const RankContext&)>& body);

// CLOCK_MONOTONIC in a minute.
int64_t InAMinute();

}  // namespace annulus::transport
