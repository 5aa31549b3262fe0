// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/coordinator/types.h"
#include "server/metrics/metric_sink.h"

namespace annulus::rpc {

struct CoordinatorServerOptions {
  std::string listen_address = "127.0.0.1:0";  // HOST:PORT; port 0: any free one
  coordinator::Settings settings;
  uint64_t term = 0;  // above that of every earlier coordinator
};

// The gRPC server of the coordinator: annulus.v1.Coordinator, grpc.health.v1.Health ("" and
// "annulus.v1.Coordinator" serve until the stop begins) and reflection.
class CoordinatorServer {
 public:
  // INVALID_ARGUMENT: not an address. UNAVAILABLE names the address that cannot be served. `sink`
  // (may be null) outlives the server.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(
      const CoordinatorServerOptions& options, metrics::MetricSink* sink);
  // Tells workers and callers that it stops, and is gone within a second.
  virtual ~CoordinatorServer() = default;

  virtual int port() const = 0;
};

}  // namespace annulus::rpc
