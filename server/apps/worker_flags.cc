// SPDX-License-Identifier: Apache-2.0
#include "server/apps/worker_flags.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/apps/cpu_list.h"
#include "server/base/status_macros.h"

namespace annulus::apps {
namespace {

// What is typed as text and needs reading.
struct RawFlags {
  std::string coordinator;
  std::string listen = "127.0.0.1:0";
  std::string metrics_listen = "127.0.0.1:0";
  uint64_t memory_limit = uint64_t{8} << 30;
  int threads = 0;  // not said
  std::string cpus;
  std::string transports = "host";
};

void DeclareAddresses(CLI::App& app, WorkerFlags& flags, RawFlags& raw) {
  app.add_option("--coordinator", raw.coordinator, "HOST:PORT of the coordinator")->required();
  app.add_option("--listen", raw.listen, "HOST:PORT to serve gRPC on; port 0: any free one")
      ->capture_default_str();
  app.add_option("--advertise", flags.advertise,
                 "host that others reach this worker under (default: the one of --listen, or the "
                 "host name where that is a wildcard)");
  app.add_option("--metrics-listen", raw.metrics_listen,
                 "ADDRESS:PORT of /metrics and /healthz, the address numeric; \"\": none")
      ->capture_default_str();
  app.add_option("--data-address", flags.data_address,
                 "numeric address on which peers of other hosts reach the transport")
      ->capture_default_str();
  app.add_option("--region-socket", flags.region_socket,
                 "path of the UNIX socket that takes memory regions; @NAME: abstract (default: "
                 "abstract, with a random name)");
  app.add_option("--port-file", flags.port_file,
                 "write the addresses in use to this file, as JSON, once serving");
}

void DeclareIdentity(CLI::App& app, WorkerFlags& flags) {
  app.add_option("--name", flags.name,
                 "workers/NAME, [a-z0-9-]{1,63} (default: host name and process id)");
  app.add_option("--node", flags.node, "node that this worker is on (default: host name)");
  app.add_option("--host-id", flags.host_id,
                 "equal for workers that can share memory (default: of the kernel and namespace)");
}

void DeclareDevice(CLI::App& app, WorkerFlags& flags) {
  app.add_option("--compute-plugin", flags.compute_plugin, "name or path of the compute plugin")
      ->envname("ANNULUS_COMPUTE_PLUGIN")
      ->capture_default_str();
  app.add_option("--device-ordinal", flags.device.ordinal,
                 "which of the plugin's devices, as the runtime numbers those that are visible")
      ->check(CLI::Range(0, 1023))
      ->capture_default_str();
  app.add_option("--compute-provider", flags.device.provider,
                 "which kernels of the plugin to use (default: the fastest that the device runs)");
  app.add_option("--spare-units", flags.device.spare_units,
                 "compute units (SMs) that kernels leave to transfers which run on them")
      ->check(CLI::Range(0, 1023))
      ->capture_default_str();
  app.add_flag("--deterministic", flags.device.deterministic,
               "the backward gives the same bits every time, if need be slower");
}

void DeclareResources(CLI::App& app, WorkerFlags& flags, RawFlags& raw) {
  app.add_option("--memory-limit", raw.memory_limit,
                 "most memory for tensors and buffers, such as 8GiB; 0: no limit")
      ->transform(CLI::AsSizeValue(true))
      ->default_str("8GiB");
  app.add_option("--threads", raw.threads, "compute threads (default 1, or the number of --cpus)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--cpus", raw.cpus,
                 "processors to bind the compute threads to while they work, one each, such as "
                 "0,2-3 (default: the system's choice)");
  DeclareDevice(app, flags);
  app.add_option("--max-requests", flags.max_requests,
                 "requests that run at once; as many again may wait")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--peer-timeout", flags.peer_timeout_seconds,
                 "seconds of silence after which a peer is lost")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  app.add_option("--transport-plugin", raw.transports,
                 "names or paths of transport plugins, such as host,cuipc?,nccl?; the first is the "
                 "default, one with a ? may be missing")
      ->envname("ANNULUS_TRANSPORT_PLUGIN")
      ->capture_default_str();
}

void DeclareProcess(CLI::App& app, WorkerFlags& flags) {
  app.add_option("--log-level", flags.log_level, "least severe messages to print")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--die-with-parent", flags.die_with_parent,
               "stop when the process that started this one dies");
  app.set_version_flag("--version", std::string(ANNULUS_VERSION));
}

// The name that a host and a process id make, within what a name may be.
std::string DefaultName() {
  std::string name;
  for (const char c : absl::AsciiStrToLower(HostName())) {
    name.push_back(absl::ascii_isalnum(static_cast<unsigned char>(c)) ? c : '-');
  }
  return absl::StrCat(name.substr(0, 48), "-", getpid());
}

bool IsWildcard(const std::string& host) { return host == "0.0.0.0" || host == "::"; }

absl::Status CheckName(const std::string& name) {
  const bool good =
      !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
      });
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--name: expected 1..63 characters [a-z0-9-], got \"", name, "\""));
}

absl::StatusOr<HostPort> ParseAddress(const char* flag, const std::string& text) {
  auto address = ParseHostPort(text);
  if (address.ok()) return address;
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", address.status().message()));
}

absl::Status CompleteThreads(const RawFlags& raw, WorkerFlags* flags) {
  if (!raw.cpus.empty()) {
    auto cpus = ParseCpuList(raw.cpus);
    if (!cpus.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--cpus: ", cpus.status().message()));
    }
    flags->device.cpus = *std::move(cpus);
  }
  const int count = static_cast<int>(flags->device.cpus.size());
  flags->device.threads = raw.threads > 0 ? raw.threads : std::max(1, count);
  if (count == 0 || count == flags->device.threads) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--cpus: expected one processor for each of the ",
                                                 flags->device.threads, " threads, got ", count));
}

absl::Status CompleteTransports(const RawFlags& raw, WorkerFlags* flags) {
  for (absl::string_view plugin : absl::StrSplit(raw.transports, ',')) {
    const bool optional = absl::ConsumeSuffix(&plugin, "?");
    if (plugin.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--transport-plugin: expected names or paths with commas between, got \"",
                       raw.transports, "\""));
    }
    flags->transports.push_back({std::string(plugin), optional});
  }
  return absl::OkStatus();
}

absl::Status Complete(const RawFlags& raw, WorkerFlags* flags) {
  ANNULUS_RETURN_IF_ERROR(CompleteTransports(raw, flags));
  ANNULUS_RETURN_IF_ERROR(CompleteThreads(raw, flags));
  ANNULUS_ASSIGN_OR_RETURN(flags->coordinator, ParseAddress("--coordinator", raw.coordinator));
  ANNULUS_ASSIGN_OR_RETURN(flags->listen, ParseAddress("--listen", raw.listen));
  flags->serve_metrics = !raw.metrics_listen.empty();
  if (flags->serve_metrics) {
    ANNULUS_ASSIGN_OR_RETURN(flags->metrics_listen,
                             ParseAddress("--metrics-listen", raw.metrics_listen));
  }
  flags->memory_limit_bytes = raw.memory_limit;
  if (flags->name.empty()) flags->name = DefaultName();
  ANNULUS_RETURN_IF_ERROR(CheckName(flags->name));
  if (flags->node.empty()) flags->node = HostName();
  if (flags->host_id.empty()) flags->host_id = HostId();
  if (flags->advertise.empty()) {
    flags->advertise = IsWildcard(flags->listen.host) ? HostName() : flags->listen.host;
  }
  return absl::OkStatus();
}

}  // namespace

std::variant<WorkerFlags, int> ParseWorkerFlags(int argc, char** argv) {
  WorkerFlags flags;
  RawFlags raw;
  CLI::App app{"Holds one rank's shards of Q, K and V and computes its part of ring attention."};
  app.name("annulus-worker");
  DeclareAddresses(app, flags, raw);
  DeclareIdentity(app, flags);
  DeclareResources(app, flags, raw);
  DeclareProcess(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  const absl::Status status = Complete(raw, &flags);
  if (!status.ok()) {
    std::cerr << "annulus-worker: " << status.message() << "\n";
    return kExitUsage;
  }
  return flags;
}

}  // namespace annulus::apps
