// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "annulus/v1/worker.pb.h"
#include "client/src/verdict.h"
#include "client/src/worker_link.h"

namespace annulus::client {

struct RankCall {
  int rank = 0;
  std::string worker;
  std::shared_ptr<WorkerLink> link;
  v1::AttendRequest request;
};

struct RankAnswer {
  RankStatus outcome;
  v1::AttendResponse response;
};

// How long the other ranks have after the first failure to bring a better-informed one.
inline constexpr absl::Duration kVerdictGrace = absl::Milliseconds(1500);
// The same once nothing better can come: time for them to stop by themselves.
inline constexpr absl::Duration kQuietGrace = absl::Milliseconds(300);

// All calls at once. Returns when every one has ended: by itself, or cancelled after the grace that
// follows the first failure, or at the deadline.
std::vector<RankAnswer> FanOut(const std::vector<RankCall>& calls, absl::Time deadline);

}  // namespace annulus::client
