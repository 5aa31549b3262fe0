// SPDX-License-Identifier: Apache-2.0
// annulus topology: who sits where in a ring, over what its hops go, and why; of the live workers
// of a cluster, or of a cluster that is only described.
#include "server/ring/topology/topology.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/commands/commands.h"
#include "client/cli/commands/coordinator_flags.h"
#include "client/cli/exit_code.h"
#include "client/cli/text_output.h"
#include "client/cli/worker_facts.h"
#include "client/io/mapped_file.h"
#include "server/base/status_macros.h"
#include "server/ring/topology/facts_json.h"
#include "server/ring/topology/presets.h"
#include "server/ring/topology/topology_text.h"

namespace annulus::cli {
namespace {

struct TopologyFlags {
  std::string coordinator;
  std::string describe;
  std::string format = "text";
  ring::TopologyWish wish;
};

absl::StatusOr<std::vector<ring::WorkerFacts>> Described(const std::string& source) {
  for (const ring::TopologyPreset& preset : ring::TopologyPresets()) {
    if (source == preset.name) return ring::PresetFacts(source);
  }
  const auto file = io::MappedFile::Open(source);
  if (!file.ok()) {
    return UsageError(absl::StrCat(
        "--describe: neither a file (", std::string(file.status().message()),
        ") nor a preset: ", std::string(ring::PresetFacts(source).status().message())));
  }
  const absl::string_view text(reinterpret_cast<const char*>(file->bytes().data()),
                               file->bytes().size());
  auto facts = ring::ParseFactsJson(text);
  if (facts.ok()) return facts;
  return UsageError(absl::StrCat(source, ": ", std::string(facts.status().message())));
}

absl::StatusOr<std::vector<ring::WorkerFacts>> Live(const std::string& coordinator) {
  const absl::Time deadline = absl::Now() + kQuestionTimeout;
  ANNULUS_ASSIGN_OR_RETURN(const auto link,
                           client::CoordinatorLink::Connect(coordinator, deadline));
  ANNULUS_ASSIGN_OR_RETURN(const v1::ListWorkersResponse answer, link->ListWorkers(deadline));
  std::vector<ring::WorkerFacts> facts;
  for (const v1::WorkerInfo& worker : answer.workers()) {
    if (worker.state() == v1::WorkerInfo::STATE_LIVE) facts.push_back(FactsOf(worker.hello()));
  }
  return facts;
}

absl::StatusOr<std::string> Show(const TopologyFlags& flags) {
  if (flags.coordinator.empty() == flags.describe.empty()) {
    return UsageError("expected one of --describe and --coordinator");
  }
  const ring::TopologyWish& wish = flags.wish;
  if (flags.format == "facts" &&
      (wish.window_size > 0 || wish.ranks_per_node > 0 || !wish.transports.inner.empty() ||
       !wish.transports.outer.empty())) {
    return UsageError(
        "--format=facts prints what is decided on, not what is decided: leave out "
        "--cp-window-size, --ranks-per-node, --inner-transport and --outer-transport");
  }
  ANNULUS_ASSIGN_OR_RETURN(
      const std::vector<ring::WorkerFacts> facts,
      flags.describe.empty() ? Live(flags.coordinator) : Described(flags.describe));
  if (flags.format == "facts") return ring::FactsToText(facts);
  const auto topology = ring::DecideTopology(facts, wish);
  if (!topology.ok()) {
    return absl::IsInvalidArgument(topology.status()) ? UsageError(topology.status())
                                                      : topology.status();
  }
  return flags.format == "json" ? ring::TopologyToJson(*topology) : ring::TopologyToText(*topology);
}

}  // namespace

Command AddTopologyCommand(CLI::App* app) {
  auto flags = std::make_shared<TopologyFlags>();
  app->add_option("--coordinator", flags->coordinator, "HOST:PORT: the live workers of a cluster");
  app->add_option("--describe", flags->describe,
                  "A file of facts (as --format=facts prints them), or a preset such as "
                  "dgx-h100x4-nics8; offline");
  app->add_option("--cp-window-size", flags->wish.window_size,
                  "Ranks of an inner ring (default: what suits the nodes)")
      ->check(CLI::Range(1, 4096));
  app->add_option("--ranks-per-node", flags->wish.ranks_per_node,
                  "States nodes where there are none")
      ->check(CLI::Range(1, 4096));
  app->add_option("--inner-transport", flags->wish.transports.inner,
                  "Transport inside nodes (default: the best that the facts allow)");
  app->add_option("--outer-transport", flags->wish.transports.outer,
                  "Transport between nodes (default: the best that the facts allow)");
  app->add_option("--format", flags->format, "text, json or facts (default text)")
      ->check(CLI::IsMember({"text", "json", "facts"}));
  return [flags] {
    const absl::StatusOr<std::string> text = Show(*flags);
    return text.ok() ? WriteText("", *text) : Fail(text.status());
  };
}

}  // namespace annulus::cli
