// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/impl/service_type.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "server/metrics/metric_sink.h"
#include "server/worker/engine.h"

namespace annulus::rpc {

struct WorkerServiceOptions {
  // What SessionOpened says.
  uint64_t incarnation = 0;
  std::string host_id;
  std::string region_socket;

  int max_concurrent_requests = 8;  // Attend calls that run; as many again may wait
  int max_sessions = 1024;
  // For an Attend call without a deadline of its own.
  double default_deadline_seconds = 600;
};

// annulus.v1.Worker on the callback API. What blocks (Attend) runs on threads of its own; the rest
// is short. Tensor streams are read and written as raw slices (worker_streams.h).
class WorkerService {
 public:
  // `engine` and `sink` (may be null) outlive the service, the service outlives its server.
  static std::unique_ptr<WorkerService> Create(const WorkerServiceOptions& options,
                                               worker::Engine* engine, metrics::MetricSink* sink);
  virtual ~WorkerService() = default;

  virtual grpc::Service* service() = 0;
  // From now on sessions and Attend are refused with UNAVAILABLE (reason WORKER_STOPPING).
  virtual void BeginStop() = 0;
  // Waits for the Attend calls that run or wait. False: not all had ended by `deadline`.
  virtual bool AwaitIdle(std::chrono::steady_clock::time_point deadline) = 0;
};

}  // namespace annulus::rpc
