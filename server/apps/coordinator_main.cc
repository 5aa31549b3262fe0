// SPDX-License-Identifier: Apache-2.0
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "server/apps/coordinator_flags.h"
#include "server/apps/process.h"
#include "server/apps/term.h"
#include "server/base/status_macros.h"
#include "server/metrics/prometheus/metrics_server.h"
#include "server/metrics/prometheus/prometheus_metrics.h"
#include "server/rpc/coordinator_server.h"

// annulus-coordinator: decides who sits where. Wiring only.
namespace annulus::apps {
namespace {

constexpr double kStopSeconds = 0.9;

// What runs, in the order in which it was started.
struct Daemon {
  std::unique_ptr<metrics::PrometheusMetrics> metrics;
  std::unique_ptr<rpc::CoordinatorServer> server;
  std::unique_ptr<metrics::MetricsServer> metrics_server;
};

absl::StatusOr<std::unique_ptr<metrics::MetricsServer>> ServeMetrics(
    const HostPort& listen, const metrics::PrometheusMetrics* metrics) {
  auto server = metrics::MetricsServer::Start({.bind_address = listen.host, .port = listen.port},
                                              [metrics] { return metrics->Text(); });
  if (server.ok()) return server;
  return absl::Status(
      server.status().code(),
      absl::StrCat("cannot serve metrics on ", listen.ToString(), ": ", server.status().message()));
}

// The addresses in use, for whoever asked for port 0.
std::string PortFileText(const CoordinatorFlags& flags, const Daemon& daemon) {
  std::string text = absl::StrCat(
      "{\"listen\":\"", HostPort{flags.listen.host, daemon.server->port()}.ToString(), "\"");
  if (daemon.metrics_server != nullptr) {
    absl::StrAppend(&text, ",\"metrics\":\"",
                    HostPort{flags.metrics_listen.host, daemon.metrics_server->port()}.ToString(),
                    "\"");
  }
  return absl::StrCat(text, "}\n");
}

absl::StatusOr<Daemon> Start(const CoordinatorFlags& flags) {
  ANNULUS_ASSIGN_OR_RETURN(const uint64_t term, NextTerm(flags.state_file));
  Daemon daemon;
  ANNULUS_ASSIGN_OR_RETURN(daemon.metrics,
                           metrics::PrometheusMetrics::Create(
                               metrics::Daemon::kCoordinator,
                               {.version = ANNULUS_VERSION, .compute = "", .transport = ""}));
  ANNULUS_ASSIGN_OR_RETURN(
      daemon.server,
      rpc::CoordinatorServer::Start(
          {.listen_address = flags.listen.ToString(), .settings = flags.settings, .term = term},
          daemon.metrics.get()));
  if (flags.serve_metrics) {
    ANNULUS_ASSIGN_OR_RETURN(daemon.metrics_server,
                             ServeMetrics(flags.metrics_listen, daemon.metrics.get()));
  }
  if (!flags.port_file.empty()) {
    ANNULUS_RETURN_IF_ERROR(WriteFileAtomically(flags.port_file, PortFileText(flags, daemon)));
  }
  spdlog::info("annulus-coordinator {} serves {}, term {}", ANNULUS_VERSION,
               HostPort{flags.listen.host, daemon.server->port()}.ToString(), term);
  return daemon;
}

int Run(const CoordinatorFlags& flags) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("coordinator"));
  spdlog::set_level(spdlog::level::from_str(flags.log_level));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  absl::StatusOr<Daemon> daemon = Start(flags);
  if (!daemon.ok()) {
    std::cerr << "annulus-coordinator: " << std::string(daemon.status().message()) << "\n";
    return ExitCodeOf(daemon.status());
  }
  const int signal = AwaitStopSignal();
  spdlog::info("signal {}: stopping", signal);
  LimitStop(kStopSeconds);
  daemon->metrics_server.reset();
  daemon->server.reset();
  return kExitDone;
}

}  // namespace
}  // namespace annulus::apps

int main(int argc, char** argv) {
  annulus::apps::BlockStopSignals();
  // Its errors come back as ours; GRPC_VERBOSITY=ERROR shows them.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  const auto flags = annulus::apps::ParseCoordinatorFlags(argc, argv);
  if (const int* exit_code = std::get_if<int>(&flags)) return *exit_code;
  const auto& parsed = std::get<annulus::apps::CoordinatorFlags>(flags);
  if (parsed.die_with_parent) {
    if (const absl::Status status = annulus::apps::DieWithParent(); !status.ok()) {
      std::cerr << "annulus-coordinator: " << std::string(status.message()) << "\n";
      return annulus::apps::kExitCouldNotServe;
    }
  }
  return annulus::apps::Run(parsed);
}
