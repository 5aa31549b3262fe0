// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "server/metrics/metric_sink.h"
#include "server/ring/topology/facts.h"
#include "server/worker/engine.h"

namespace annulus::rpc {

// What a worker says of itself; see WorkerHello in coordinator.proto.
struct WorkerIdentity {
  std::string name;
  uint64_t incarnation = 0;
  std::string address;
  std::string node;
  std::string host_id;
  std::string region_socket;
  std::string metrics_address;
  uint64_t memory_limit_bytes = 0;
  std::string compute_device;
  std::string transport;
  std::string version;
  ring::WorkerFacts facts;
};

struct CoordinatorSessionOptions {
  std::string coordinator_address;  // HOST:PORT
  WorkerIdentity identity;
  // Between attempts to reach the coordinator: doubled each time, from the first to the second.
  std::chrono::milliseconds backoff_min{100};
  std::chrono::milliseconds backoff_max{1000};
  std::chrono::milliseconds welcome_timeout{2000};
  std::chrono::milliseconds plan_timeout{2000};
  // Told when the coordinator has welcomed this worker and when it is lost again. From the
  // session's thread; must not block. May be empty.
  std::function<void(bool connected)> on_connected;
};

// The worker's side of Coordinator.WorkerSession, for as long as it lives: says Hello, beats, does
// what it is told and reports faults. Also gives the engine its source of plans.
//
// When the stream ends, for whatever reason, every group of the engine is faulted and the session
// begins anew with Hello: the coordinator sees a fresh member. A worker that was stopped and goes
// on notices by its own clock that its lease must have lapsed, and does the same; it never works on
// with an epoch that may be over. A coordinator with a lower term than the highest seen is refused.
//
// Threads: one reads, one writes and beats, one carries out commands; none is the caller's.
class CoordinatorSession {
 public:
  // Returns at once; the first connection is made in the background. `engine` and `sink` (may be
  // null) outlive the session.
  static std::unique_ptr<CoordinatorSession> Start(const CoordinatorSessionOptions& options,
                                                   worker::Engine* engine,
                                                   metrics::MetricSink* sink);
  // Ends the stream: to the coordinator this worker is gone. Every group of the engine is faulted.
  virtual ~CoordinatorSession() = default;
};

}  // namespace annulus::rpc
