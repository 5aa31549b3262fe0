// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// The wires of an emulated cluster (--emulate-link, --ranks-per-node). Each rank has, per level,
// one wire out and one wire in. A rate of 0 leaves a level as it is.
struct PacingModel {
  annulusLinkModel inner{};
  annulusLinkModel outer{};
  int32_t ranks_per_node = 1;
  std::vector<int32_t> nodes;  // node of each rank; empty: rank / ranks_per_node
};

// Inner when both ranks are of one node.
annulusLevel LevelBetween(const PacingModel& model, int32_t a, int32_t b);

// One direction of one rank's link at one level: carries one transfer after the other.
class Wire {
 public:
  explicit Wire(const annulusLinkModel& link = {}) : link_(link) {}

  bool emulated() const { return link_.bytes_per_second > 0; }
  int64_t TransferNs(uint64_t bytes) const;
  int64_t latency_ns() const { return static_cast<int64_t>(link_.latency_seconds * 1e9); }
  // Occupies the wire for `bytes`, not before `earliest_ns` nor before it is free. Returns the
  // start.
  int64_t Reserve(int64_t earliest_ns, uint64_t bytes);
  // A transfer reserved before starts later than thought, at `start_ns`.
  void Postpone(int64_t start_ns, uint64_t bytes);

 private:
  annulusLinkModel link_;
  int64_t free_ns_ = 0;
};

// A transport that runs over `inner` and reports each transfer done when the emulated wires would
// have delivered it. The bytes move at once; then sender and receiver agree on the time at which
// both the sender's wire out and the receiver's wire in are free, by two messages of eight bytes.
// The transfer starts then, takes bytes / rate, and is at the receiver a latency later. start_ns
// and end_ns are those emulated times; where the real copy took longer, it wins. An operation whose
// emulated end lies beyond its deadline fails with DEADLINE at the deadline.
//
// `inner` must take host memory, if only for those words; the transfers themselves may lie in
// whatever memory it takes.
//
// All ranks must run on one machine (one CLOCK_MONOTONIC). The model is process-wide and taken by
// each `open`; call this again to change it. `inner` must outlive the process's transports.
const annulusTransportV1* PacingTransport(const annulusTransportV1* inner,
                                          const PacingModel& model);

}  // namespace annulus::transport
