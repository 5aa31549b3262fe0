// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <variant>

#include "server/apps/process.h"
#include "server/coordinator/types.h"

namespace annulus::apps {

// Command line of annulus-coordinator, defaults filled in.
struct CoordinatorFlags {
  HostPort listen{"127.0.0.1", 7400};
  bool serve_metrics = false;
  HostPort metrics_listen;
  coordinator::Settings settings;
  std::string state_file;
  std::string port_file;
  std::string log_level = "info";
  bool die_with_parent = false;
};

// The flags, or the exit code of a process that has printed why it ends (help, version, a usage
// error).
std::variant<CoordinatorFlags, int> ParseCoordinatorFlags(int argc, char** argv);

}  // namespace annulus::apps
