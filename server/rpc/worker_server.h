// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/metrics/metric_sink.h"
#include "server/worker/engine.h"

namespace annulus::rpc {

struct WorkerServerOptions {
  std::string listen_address = "127.0.0.1:0";  // HOST:PORT; port 0: any free one
  uint64_t incarnation = 0;
  std::string host_id;
  std::string region_socket;
  int max_concurrent_requests = 8;
};

// The gRPC server of a worker: annulus.v1.Worker, grpc.health.v1.Health and reflection.
//
// Health: "" is serving until the stop begins; "annulus.v1.Worker" says whether the worker is
// ready, that is, known to a coordinator. Thread safe.
class WorkerServer {
 public:
  // UNAVAILABLE names the address that cannot be served. `engine` and `sink` (may be null) outlive
  // the server.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(const WorkerServerOptions& options,
                                                             worker::Engine* engine,
                                                             metrics::MetricSink* sink);
  // Cancels what is left and waits for it.
  virtual ~WorkerServer() = default;

  virtual int port() const = 0;
  virtual void SetReady(bool ready) = 0;
  // Not serving any more: new requests are refused; those that run may end until `deadline`. False:
  // some have not.
  virtual bool Drain(std::chrono::steady_clock::time_point deadline) = 0;
};

}  // namespace annulus::rpc
