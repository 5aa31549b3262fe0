// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/impl/service_type.h>

#include <cstdint>
#include <memory>

#include "server/coordinator/types.h"
#include "server/metrics/metric_sink.h"

namespace annulus::rpc {

struct CoordinatorServiceOptions {
  coordinator::Settings settings;
  uint64_t term = 0;  // above that of every earlier coordinator
};

// annulus.v1.Coordinator on the callback API. One thread owns the state and decides (see
// coordinator_loop.h), another plans; those of gRPC only convert and hand over.
class CoordinatorService {
 public:
  // `sink` (may be null) outlives the service, the service outlives its server.
  static std::unique_ptr<CoordinatorService> Create(const CoordinatorServiceOptions& options,
                                                    metrics::MetricSink* sink);
  virtual ~CoordinatorService() = default;

  virtual grpc::Service* service() = 0;
  // Ends every session and waiting call with UNAVAILABLE (reason COORDINATOR_STOPPING); new ones
  // are refused with the same.
  virtual void BeginStop() = 0;
};

}  // namespace annulus::rpc
