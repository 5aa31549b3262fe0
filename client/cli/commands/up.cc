// SPDX-License-Identifier: Apache-2.0
// annulus up: a coordinator and workers on this machine, in the foreground.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/commands.h"
#include "client/cli/embedded_cluster.h"
#include "client/cli/exit_code.h"
#include "client/cli/flags.h"
#include "client/cli/interrupt.h"
#include "client/cli/units.h"

namespace annulus::cli {
namespace {

struct UpFlags {
  EmbeddedClusterOptions cluster{.workers = 4};
  std::string memory_limit;
  Format format = Format::kText;
};

void Print(const EmbeddedCluster& cluster, Format format) {
  if (format == Format::kJson) {
    nlohmann::ordered_json json{{"coordinator", cluster.coordinator().listen},
                                {"processes", nlohmann::ordered_json::array()}};
    for (const ServiceAddresses& process : cluster.addresses()) {
      json["processes"].push_back({{"name", process.name},
                                   {"pid", process.pid},
                                   {"address", process.listen},
                                   {"metrics", process.metrics}});
    }
    std::printf("%s\n", json.dump().c_str());
  } else {
    for (const ServiceAddresses& process : cluster.addresses()) {
      std::printf("%-12s %-21s http://%s/metrics\n", process.name.c_str(), process.listen.c_str(),
                  process.metrics.c_str());
    }
    std::printf("\nannulus run --coordinator %s --context-parallel-size %zu\nCtrl-C ends.\n",
                cluster.coordinator().listen.c_str(), cluster.addresses().size() - 1);
  }
  std::fflush(stdout);
}

int Up(UpFlags flags) {
  if (!flags.memory_limit.empty()) {
    const auto bytes = ParseBytes(flags.memory_limit);
    if (!bytes.ok()) {
      return Fail(
          UsageError(absl::StrCat("--memory-limit: ", std::string(bytes.status().message()))));
    }
    flags.cluster.memory_limit_bytes = *bytes;
  }
  SetInterruptExitCode(kDone);
  const auto cluster = EmbeddedCluster::Start(flags.cluster);
  if (!cluster.ok()) return Fail(cluster.status());
  const ScopedCleanup cleanup([raw = cluster->get()] { raw->Stop(); });
  Print(**cluster, flags.format);
  const std::string ended = (*cluster)->WaitForEnd();
  // A Ctrl-C that is taking the cluster down makes children end too: then it has the last word.
  const UninterruptedSection section;
  return Fail(absl::InternalError(
      absl::StrCat(ended, " ended by itself; the cluster is taken down\n", (*cluster)->Logs())));
}

}  // namespace

Command AddUpCommand(CLI::App* app) {
  auto flags = std::make_shared<UpFlags>();
  app->add_option("--workers", flags->cluster.workers, "Workers to start (default 4)")
      ->check(CLI::Range(1, 256));
  app->add_option("--ranks-per-node", flags->cluster.ranks_per_node,
                  "Puts so many workers on a node of their own name")
      ->check(CLI::Range(1, 256));
  app->add_option("--threads,--workers-threads", flags->cluster.threads,
                  "Compute threads of each worker (default cores / workers)")
      ->check(CLI::Range(1, 4096));
  app->add_flag("--pin-threads", flags->cluster.pin_threads,
                "Binds each worker's compute threads to processors of their own");
  AddDeviceFlag(app, &flags->cluster.compute_plugin);
  AddComputeProviderFlag(app, &flags->cluster.compute_provider);
  AddTransportPluginFlag(app, &flags->cluster.transport_plugin);
  app->add_option("--memory-limit", flags->memory_limit, "Of each worker, such as 4GiB");
  app->add_option("--listen", flags->cluster.listen,
                  "Address of the coordinator (default 127.0.0.1 and a free port)");
  AddFormatFlag(app, &flags->format);
  return [flags] { return Up(*flags); };
}

}  // namespace annulus::cli
