// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "server/apps/process.h"
#include "server/worker/device_options.h"

namespace annulus::apps {

// Command line of annulus-worker, defaults filled in.
struct WorkerFlags {
  HostPort coordinator;
  std::string name;
  std::string node;
  std::string host_id;
  HostPort listen{"127.0.0.1", 0};
  std::string advertise;  // host that others reach this worker under
  bool serve_metrics = true;
  HostPort metrics_listen{"127.0.0.1", 0};
  std::string data_address = "127.0.0.1";
  uint64_t memory_limit_bytes = 0;
  worker::DeviceOptions device;
  std::string compute_plugin = "cpu";
  // The first is the default; an optional one is left out where it cannot be loaded.
  struct TransportFlag {
    std::string plugin;
    bool optional = false;
  };
  std::vector<TransportFlag> transports;
  int max_requests = 8;
  double peer_timeout_seconds = 1.0;
  std::string port_file;
  std::string region_socket;
  std::string log_level = "info";
  bool die_with_parent = false;
};

// The flags, or the exit code of a process that has printed why it ends (help, version, a usage
// error).
std::variant<WorkerFlags, int> ParseWorkerFlags(int argc, char** argv);

}  // namespace annulus::apps
