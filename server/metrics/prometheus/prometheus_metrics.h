// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/metrics/metric_sink.h"

namespace annulus::metrics {

// What annulus_build_info says.
struct BuildInfo {
  std::string version;
  std::string compute;    // compute plugin; "" where there is none
  std::string transport;  // transport plugin; "" where there is none
};

// Every metric of one daemon, as the table has it, each label set present from the start at zero.
class PrometheusMetrics : public MetricSink {
 public:
  // `daemon` is kWorker or kCoordinator. INTERNAL if the table does not suit Prometheus.
  static absl::StatusOr<std::unique_ptr<PrometheusMetrics>> Create(Daemon daemon,
                                                                   const BuildInfo& build);

  // Prometheus text exposition 0.0.4. Thread safe.
  virtual std::string Text() const = 0;
};

}  // namespace annulus::metrics
