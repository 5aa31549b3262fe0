// SPDX-License-Identifier: Apache-2.0
#include "server/apps/coordinator_flags.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::apps {
namespace {

// What is typed as text and needs reading.
struct RawFlags {
  std::string listen = "127.0.0.1:7400";
  std::string metrics_listen;
};

void Declare(CLI::App& app, CoordinatorFlags& flags, RawFlags& raw) {
  app.add_option("--listen", raw.listen, "HOST:PORT to serve gRPC on; port 0: any free one")
      ->capture_default_str();
  app.add_option("--metrics-listen", raw.metrics_listen,
                 "ADDRESS:PORT of /metrics and /healthz, the address numeric (default: none)");
  app.add_option("--lease-ms", flags.settings.lease_ms,
                 "a worker that is silent for this long is lost")
      ->check(CLI::Range(100, 600'000))
      ->capture_default_str();
  app.add_option("--heartbeat-ms", flags.settings.heartbeat_ms,
                 "how often workers beat; at most half the lease")
      ->check(CLI::Range(20, 300'000))
      ->capture_default_str();
  app.add_option("--state-file", flags.state_file,
                 "keeps the term across restarts, for a clock that may go back (default: none, the "
                 "clock alone)");
  app.add_option("--port-file", flags.port_file,
                 "write the addresses in use to this file, as JSON, once serving");
  app.add_option("--log-level", flags.log_level, "least severe messages to print")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--die-with-parent", flags.die_with_parent,
               "stop when the process that started this one dies");
  app.set_version_flag("--version", std::string(ANNULUS_VERSION));
}

absl::Status Complete(const RawFlags& raw, CoordinatorFlags* flags) {
  ANNULUS_ASSIGN_OR_RETURN(flags->listen, ParseHostPort(raw.listen));
  flags->serve_metrics = !raw.metrics_listen.empty();
  if (flags->serve_metrics) {
    ANNULUS_ASSIGN_OR_RETURN(flags->metrics_listen, ParseHostPort(raw.metrics_listen));
  }
  if (2 * flags->settings.heartbeat_ms > flags->settings.lease_ms) {
    return absl::InvalidArgumentError(
        absl::StrCat("--heartbeat-ms: expected at most half of --lease-ms (",
                     flags->settings.lease_ms, "), got ", flags->settings.heartbeat_ms));
  }
  return absl::OkStatus();
}

}  // namespace

std::variant<CoordinatorFlags, int> ParseCoordinatorFlags(int argc, char** argv) {
  CoordinatorFlags flags;
  RawFlags raw;
  CLI::App app{"Decides which workers form a group, who sits where and by which plan."};
  app.name("annulus-coordinator");
  Declare(app, flags, raw);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  if (const absl::Status status = Complete(raw, &flags); !status.ok()) {
    std::cerr << "annulus-coordinator: " << std::string(status.message()) << "\n";
    return kExitUsage;
  }
  return flags;
}

}  // namespace annulus::apps
