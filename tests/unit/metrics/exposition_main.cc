// SPDX-License-Identifier: Apache-2.0
//
// Prints the exposition of one daemon, for promtool to check:  exposition worker|coordinator

#include <cstdio>
#include <string>

#include "server/metrics/prometheus/prometheus_metrics.h"

int main(int argc, char** argv) {
  using annulus::metrics::Daemon;
  const bool worker = argc == 2 && std::string(argv[1]) == "worker";
  const auto metrics = annulus::metrics::PrometheusMetrics::Create(
      worker ? Daemon::kWorker : Daemon::kCoordinator, {"1.2.3", "cpu", "host"});
  if (!metrics.ok()) return 1;
  std::fputs((*metrics)->Text().c_str(), stdout);
  return 0;
}
