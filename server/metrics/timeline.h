// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace annulus::metrics {

enum class OpKind { kCompute, kSend, kReceive, kWait, kAccumulate, kPrepare, kFinish, kCopy };
// Which ring a hop belongs to, or both in sums.
enum class Level { kInner, kOuter };

// The plugin that moves the bytes of each peer, by rank. Not by ring: a plain ring crosses nodes.
using TransportNames = std::vector<std::string>;

// One interval on a rank. Times are CLOCK_MONOTONIC nanoseconds.
struct Op {
  OpKind kind = OpKind::kCompute;
  int step = 0;
  Level level = Level::kInner;  // kSend, kReceive, kWait
  int peer = -1;                // kSend, kReceive, kWait
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  uint64_t bytes = 0;
  const char* label = "";  // static string: "kv", "dkv", "upload"
};

// Every op of one request on one rank, in no particular order.
struct Timeline {
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  std::vector<Op> ops;
};

// Seconds of one rank. Compute counts kCompute, kAccumulate, kPrepare and kFinish; kCopy, between
// the host's memory and the device's, counts as neither compute nor communication; comm is the
// union of the receives and sends; active the union of compute and comm; exposed = active -
// compute; overlap = 1 - exposed / comm. exposed by level: each exposed instant goes to outer if an
// outer transfer is in flight then, else to inner. peer wait: kWait time with no byte of this rank
// moving and no compute: a late peer.
struct Summary {
  double wall_seconds = 0;
  double compute_seconds = 0;
  double comm_seconds = 0;
  double active_seconds = 0;
  double exposed_seconds = 0;
  double exposed_inner_seconds = 0;
  double exposed_outer_seconds = 0;
  double peer_wait_seconds = 0;
  uint64_t bytes_sent_inner = 0;
  uint64_t bytes_sent_outer = 0;
  // 1 when nothing was communicated.
  double overlap() const;
};

struct StepSummary {
  int step = 0;
  double compute_seconds = 0;
  double comm_seconds = 0;
  double exposed_seconds = 0;
};

Summary Summarise(const Timeline& timeline);
// A transfer counts in the steps that it overlaps; step s lasts from the first op of s to the first
// op of s + 1.
std::vector<StepSummary> SummariseSteps(const Timeline& timeline, int steps);

}  // namespace annulus::metrics
