// SPDX-License-Identifier: Apache-2.0
// annulus workers: who is there, how they are and what they are doing.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands/commands.h"
#include "client/cli/commands/coordinator_flags.h"
#include "client/cli/exit_code.h"
#include "client/cli/text_output.h"
#include "client/cli/units.h"
#include "client/cli/worker_facts.h"
#include "server/base/status_macros.h"
#include "server/ring/topology/facts_json.h"

namespace annulus::cli {

void AddCoordinatorFlags(CLI::App* app, CoordinatorFlags* flags) {
  app->add_option("--coordinator", flags->coordinator, "HOST:PORT of the coordinator")->required();
  AddFormatFlag(app, &flags->format);
}

namespace {

using Json = nlohmann::ordered_json;

const char* StateName(v1::WorkerInfo::State state) {
  return state == v1::WorkerInfo::STATE_LIVE ? "live" : "lost";
}

Json WorkerJson(const v1::WorkerInfo& worker) {
  Json progress = Json::array();
  for (const v1::RequestProgress& request : worker.progress()) {
    progress.push_back({{"group", request.fence().group()},
                        {"epoch", request.fence().epoch()},
                        {"request_id", request.fence().request_id()},
                        {"step", request.fence().step()},
                        {"steps", request.steps()},
                        {"waiting_for_rank", request.waiting_for_rank()}});
  }
  const v1::WorkerHello& hello = worker.hello();
  return {{"name", hello.name()},
          {"state", StateName(worker.state())},
          {"address", hello.address()},
          {"node", hello.node()},
          {"metrics", hello.metrics_address()},
          {"incarnation", absl::StrFormat("%016x", hello.incarnation())},
          {"device", hello.compute_device()},
          {"transport", hello.transport()},
          {"version", hello.version()},
          {"facts", ring::FactsToJson(FactsOf(hello))},
          {"heartbeat_age_ms", worker.heartbeat_age_ms()},
          {"used_bytes", worker.used_bytes()},
          {"memory_limit_bytes", hello.memory_limit_bytes()},
          {"groups", std::vector<std::string>(worker.groups().begin(), worker.groups().end())},
          {"progress", std::move(progress)}};
}

std::string ToJson(const v1::ListWorkersResponse& answer) {
  Json json{{"term", answer.term()}, {"workers", Json::array()}};
  for (const v1::WorkerInfo& worker : answer.workers()) {
    json["workers"].push_back(WorkerJson(worker));
  }
  return json.dump(2) + "\n";
}

std::string ToText(const v1::ListWorkersResponse& answer) {
  std::string text = absl::StrFormat("%-16s %-5s %-21s %-10s %10s %10s %6s  %s\n", "worker",
                                     "state", "address", "node", "used", "limit", "beat", "groups");
  for (const v1::WorkerInfo& worker : answer.workers()) {
    const v1::WorkerHello& hello = worker.hello();
    absl::StrAppendFormat(&text, "%-16s %-5s %-21s %-10s %10s %10s %4dms  %s\n", hello.name(),
                          StateName(worker.state()), hello.address(), hello.node(),
                          FormatBytes(static_cast<double>(worker.used_bytes())),
                          FormatBytes(static_cast<double>(hello.memory_limit_bytes())),
                          worker.heartbeat_age_ms(), absl::StrJoin(worker.groups(), " "));
  }
  return text;
}

absl::StatusOr<std::string> List(const CoordinatorFlags& flags) {
  const absl::Time deadline = absl::Now() + kQuestionTimeout;
  ANNULUS_ASSIGN_OR_RETURN(const auto link,
                           client::CoordinatorLink::Connect(flags.coordinator, deadline));
  ANNULUS_ASSIGN_OR_RETURN(const v1::ListWorkersResponse answer, link->ListWorkers(deadline));
  return flags.format == Format::kJson ? ToJson(answer) : ToText(answer);
}

}  // namespace

Command AddWorkersCommand(CLI::App* app) {
  auto flags = std::make_shared<CoordinatorFlags>();
  AddCoordinatorFlags(app, flags.get());
  return [flags] {
    const absl::StatusOr<std::string> text = List(*flags);
    return text.ok() ? WriteText("", *text) : Fail(text.status());
  };
}

}  // namespace annulus::cli
