// SPDX-License-Identifier: Apache-2.0
// annulus groups: who forms a ring with whom, at which epoch, and what ended the last one.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/commands/commands.h"
#include "client/cli/commands/coordinator_flags.h"
#include "client/cli/exit_code.h"
#include "client/cli/text_output.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

using Json = nlohmann::ordered_json;

const char* StateName(v1::Group::State state) {
  switch (state) {
    case v1::Group::STATE_WAITING:
      return "waiting";
    case v1::Group::STATE_PREPARING:
      return "preparing";
    case v1::Group::STATE_CONNECTING:
      return "connecting";
    case v1::Group::STATE_READY:
      return "ready";
    default:
      return "unknown";
  }
}

int WindowOf(const v1::Group& group) {
  const v1::GroupOptions& options = group.options();
  return options.window_size() == 0 ? options.size() : options.window_size();
}

Json ChoiceJson(const v1::GroupTopology::Choice& choice) {
  return {{"transport", choice.transport()}, {"reason", choice.reason()}};
}

// "  inside nodes: host: ...\n", and nothing where nothing was decided.
std::string ChoiceText(const char* where, const v1::GroupTopology::Choice& choice) {
  if (choice.reason().empty()) return "";
  return absl::StrCat("  ", where, ": ", choice.transport().empty() ? "-" : choice.transport(),
                      ": ", choice.reason(), "\n");
}

Json GroupJson(const v1::Group& group) {
  Json json{{"name", group.name()},           {"state", StateName(group.state())},
            {"size", group.options().size()}, {"window_size", WindowOf(group)},
            {"term", group.term()},           {"epoch", group.epoch()},
            {"members", Json::array()},       {"topology", nullptr},
            {"last_fault", nullptr}};
  for (const v1::GroupMember& member : group.members()) {
    json["members"].push_back({{"rank", member.rank()},
                               {"worker", member.worker()},
                               {"address", member.address()},
                               {"node", member.node()},
                               {"nic", member.nic()},
                               {"nic_reason", member.nic_reason()}});
  }
  if (group.has_topology()) {
    const v1::GroupTopology& topology = group.topology();
    json["topology"] = {{"inner", ChoiceJson(topology.inner())},
                        {"outer", ChoiceJson(topology.outer())},
                        {"window_reason", topology.window_reason()}};
  }
  if (group.has_last_fault()) {
    const v1::GroupFault& fault = group.last_fault();
    json["last_fault"] = {{"epoch", fault.epoch()},
                          {"rank", fault.culprit_rank()},
                          {"worker", fault.culprit_worker()},
                          {"reason", fault.reason()},
                          {"step", fault.step()},
                          {"message", fault.message()}};
  }
  return json;
}

std::string ToText(const v1::ListGroupsResponse& answer) {
  std::string text = absl::StrFormat("%-20s %-10s %5s %7s %6s  %s\n", "group", "state", "size",
                                     "window", "epoch", "workers in rank order");
  for (const v1::Group& group : answer.groups()) {
    std::string workers;
    for (const v1::GroupMember& member : group.members()) {
      absl::StrAppend(&workers, workers.empty() ? "" : " ", member.worker());
    }
    absl::StrAppendFormat(&text, "%-20s %-10s %5d %7d %6d  %s\n", group.name(),
                          StateName(group.state()), group.options().size(), WindowOf(group),
                          group.epoch(), workers);
    absl::StrAppend(&text, ChoiceText("inside nodes", group.topology().inner()),
                    ChoiceText("between nodes", group.topology().outer()));
    if (group.has_last_fault() && !group.last_fault().reason().empty()) {
      absl::StrAppendFormat(&text, "  epoch %d ended: %s: %s\n", group.last_fault().epoch(),
                            group.last_fault().reason(), group.last_fault().message());
    }
  }
  return text;
}

absl::StatusOr<std::string> List(const CoordinatorFlags& flags) {
  const absl::Time deadline = absl::Now() + kQuestionTimeout;
  ANNULUS_ASSIGN_OR_RETURN(const auto link,
                           client::CoordinatorLink::Connect(flags.coordinator, deadline));
  ANNULUS_ASSIGN_OR_RETURN(const v1::ListGroupsResponse answer, link->ListGroups(deadline));
  if (flags.format == Format::kText) return ToText(answer);
  Json json{{"groups", Json::array()}};
  for (const v1::Group& group : answer.groups()) json["groups"].push_back(GroupJson(group));
  return json.dump(2) + "\n";
}

}  // namespace

Command AddGroupsCommand(CLI::App* app) {
  auto flags = std::make_shared<CoordinatorFlags>();
  AddCoordinatorFlags(app, flags.get());
  return [flags] {
    const absl::StatusOr<std::string> text = List(*flags);
    return text.ok() ? WriteText("", *text) : Fail(text.status());
  };
}

}  // namespace annulus::cli
