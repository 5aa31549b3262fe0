// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/placement.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/fault_info.h"

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

}  // namespace

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
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return std::get<2>(a) < std::get<2>(b); });
  std::vector<std::string> names;
  names.reserve(need);
  for (Candidate& candidate : candidates) names.push_back(std::move(std::get<2>(candidate).second));
  return names;
}

}  // namespace annulus::coordinator
