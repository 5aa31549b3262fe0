// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/placement.h"

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"

namespace annulus::coordinator {
namespace {

absl::Status NotEnough(const Group& group, size_t have, const std::string& detail) {
  const FaultInfo info{.reason = "NOT_ENOUGH_WORKERS",
                       .metadata = {{"group", group.name},
                                    {"have", absl::StrCat(have)},
                                    {"need", absl::StrCat(group.options.size)}}};
  return WithFaultInfo(
      absl::UnavailableError(absl::StrCat("group '", group.name, "' needs ", group.options.size,
                                          " live workers, got ", have, detail)),
      info);
}

absl::StatusOr<std::vector<std::string>> ExplicitMembers(const State& state, const Group& group) {
  std::vector<std::string> missing;
  for (const std::string& name : group.options.members) {
    const auto found = state.workers.find(name);
    if (found == state.workers.end() || !found->second.live) missing.push_back(name);
  }
  if (missing.empty()) return group.options.members;
  return NotEnough(group, group.options.members.size() - missing.size(),
                   absl::StrCat("; missing: ", absl::StrJoin(missing, ", ")));
}

absl::StatusOr<std::vector<std::string>> ChooseMembers(const State& state, const Group& group,
                                                       TimeMs now) {
  if (!group.options.members.empty()) return ExplicitMembers(state, group);
  const size_t need = group.options.size;
  if (state.order.size() < need) return NotEnough(group, state.order.size(), "");

  using Candidate = std::tuple<bool, size_t, std::pair<std::string, std::string>>;
  std::vector<Candidate> candidates;  // (blamed, groups it serves, (node, name))
  candidates.reserve(state.order.size());
  for (const auto& place : state.order) {
    const auto avoid = group.avoid_until_ms.find(place.second);
    const bool blamed = avoid != group.avoid_until_ms.end() && avoid->second > now;
    candidates.emplace_back(blamed, state.workers.at(place.second).groups.size(), place);
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.resize(need);
  std::vector<std::string> names;
  names.reserve(need);
  for (Candidate& candidate : candidates) names.push_back(std::move(std::get<2>(candidate).second));
  return names;
}

ring::WorkerFacts FactsOf(const WorkerIdentity& identity) {
  ring::WorkerFacts facts = identity.facts;
  facts.worker = identity.name;
  facts.node = identity.node;
  facts.host_id = identity.host_id;
  // One of a version that does not say more.
  if (facts.transports.empty() && !identity.transport.empty()) {
    facts.transports.push_back({.name = identity.transport});
  }
  return facts;
}

// Transfers that are off move over no link.
bool IsEmulated(const GroupOptions& options) {
  return !options.transfers_off &&
         (options.inner_link.bytes_per_second > 0 || options.outer_link.bytes_per_second > 0);
}

}  // namespace

absl::StatusOr<SharedTopology> PlaceMembers(const State& state, const Group& group, TimeMs now) {
  ANNULUS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ChooseMembers(state, group, now));
  std::vector<ring::WorkerFacts> facts;
  facts.reserve(names.size());
  for (const std::string& name : names) facts.push_back(FactsOf(state.workers.at(name).identity));
  const ring::TopologyWish wish{.window_size = group.options.window_size,
                                .keep_order = !group.options.members.empty(),
                                .ranks_per_node = group.options.ranks_per_node,
                                .transports = {.inner = group.options.inner_transport,
                                               .outer = group.options.outer_transport,
                                               .emulated = IsEmulated(group.options)}};
  ANNULUS_ASSIGN_OR_RETURN(ring::Topology topology, ring::DecideTopology(facts, wish));
  return std::make_shared<const ring::Topology>(std::move(topology));
}

}  // namespace annulus::coordinator
