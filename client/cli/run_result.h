// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "annulus/types.h"
#include "client/cli/device_memory/client_memory.h"
#include "client/cli/problem.h"
#include "client/cli/verify.h"

namespace annulus::cli {

// What one repetition of a run took.
struct Repetition {
  client::AttendReport forward;
  std::optional<client::AttendReport> backward;
  double wall_seconds() const {
    return forward.wall_seconds + (backward ? backward->wall_seconds : 0);
  }
};

// All that a run found out.
struct RunResult {
  Problem problem;
  MemoryUsed memory;
  Repetition best;                   // the repetition with the least wall time
  std::vector<double> wall_seconds;  // of every repetition, in order
  std::optional<Verification> verification;
};

}  // namespace annulus::cli
