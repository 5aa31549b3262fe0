// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <time.h>

#include <cstdint>
#include <limits>

namespace annulus::worker {

// CLOCK_MONOTONIC in nanoseconds: the one clock of deadlines and timelines.
inline int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

inline int64_t SecondsToNs(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

// Stands for "no deadline": far away, yet safe to add to.
inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max() / 2;

}  // namespace annulus::worker
