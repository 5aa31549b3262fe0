// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/calls.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/coordinator/group_options.h"
#include "server/coordinator/groups.h"
#include "server/coordinator/placement.h"

namespace annulus::coordinator {
namespace {

bool Satisfies(const Group& group, uint64_t after_epoch) {
  return group.phase == GroupPhase::kReady && group.epoch > after_epoch;
}

void Answer(Turn& turn, CallId call, absl::Status status) {
  turn.Do(AnswerCall{call, std::move(status), std::nullopt});
}

// Why the group is not what the call waited for.
absl::Status NotReady(const State& state, const Group& group, uint64_t after_epoch, TimeMs now) {
  if (group.phase == GroupPhase::kWaiting) {
    const auto placed = PlaceMembers(state, group, now);
    if (!placed.ok()) return placed.status();
  }
  std::string text = absl::StrCat("group '", group.name, "' is ", GroupPhaseName(group.phase),
                                  " at epoch ", group.epoch);
  if (group.phase == GroupPhase::kReady) {
    absl::StrAppend(&text, ", the call waited for one above ", after_epoch);
  }
  if (group.last_fault) {
    absl::StrAppend(&text, "; last fault: ", FaultReasonName(group.last_fault->reason), ", ",
                    group.last_fault->message);
  }
  return WithFaultInfo(
      absl::UnavailableError(text),
      FaultInfo{"GROUP_NOT_READY", {{"group", group.name}, {"epoch", absl::StrCat(group.epoch)}}});
}

bool IsAwaited(const State& state, const std::string& group) {
  return std::any_of(state.calls.begin(), state.calls.end(),
                     [&](const auto& entry) { return entry.second.group == group; });
}

// A group that never came to be belongs to those who wait for it.
void RemoveIfUnwanted(Turn& turn, const std::string& name) {
  const auto found = turn.state.groups.find(name);
  if (found == turn.state.groups.end() || found->second.was_ready) return;
  if (IsAwaited(turn.state, name)) return;
  RemoveGroup(turn, name, absl::AbortedError("unwanted"));
}

absl::Status Admit(Turn& turn, const EnsureGroup& ensure, const GroupOptions& options) {
  State& state = turn.state;
  const auto found = state.groups.find(ensure.name);
  if (found != state.groups.end()) {
    if (found->second.options == options) return absl::OkStatus();
    return WithFaultInfo(
        absl::FailedPreconditionError(absl::StrCat(
            "group '", ensure.name, "' exists with ", DescribeOptions(found->second.options),
            "; the call asks for ", DescribeOptions(options))),
        FaultInfo{"GROUP_OPTIONS_DIFFER", {{"group", ensure.name}}});
  }
  if (state.groups.size() >= static_cast<size_t>(turn.settings.groups_max)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", turn.settings.groups_max, " groups, all taken"));
  }
  Group& group = state.groups[ensure.name];
  group.name = ensure.name;
  group.options = options;
  return absl::OkStatus();
}

}  // namespace

void OnEnsureGroup(Turn& turn, const EnsureGroup& ensure) {
  if (absl::Status name = CheckName("group", ensure.name); !name.ok()) {
    return Answer(turn, ensure.call, std::move(name));
  }
  const auto options = NormaliseOptions(ensure.options);
  if (!options.ok()) return Answer(turn, ensure.call, options.status());
  if (turn.state.calls.size() >= static_cast<size_t>(turn.settings.calls_max)) {
    return Answer(
        turn, ensure.call,
        absl::ResourceExhaustedError(absl::StrCat("at most ", turn.settings.calls_max,
                                                  " waiting EnsureGroup calls, all taken")));
  }
  if (absl::Status admitted = Admit(turn, ensure, *options); !admitted.ok()) {
    return Answer(turn, ensure.call, std::move(admitted));
  }
  const Group& group = turn.state.groups.at(ensure.name);
  if (Satisfies(group, ensure.after_epoch)) {
    turn.Do(AnswerCall{ensure.call, absl::OkStatus(), ViewOf(turn.state, group)});
    return;
  }
  turn.state.calls[ensure.call] = {ensure.name, ensure.after_epoch, ensure.deadline_ms};
}

void OnDeleteGroup(Turn& turn, const DeleteGroup& remove) {
  RemoveGroup(
      turn, remove.name,
      WithFaultInfo(absl::AbortedError(absl::StrCat("group '", remove.name, "' was deleted")),
                    FaultInfo{"GROUP_DELETED", {{"group", remove.name}}}));
}

void OnCallCancelled(Turn& turn, const CallCancelled& cancelled) {
  const auto found = turn.state.calls.find(cancelled.call);
  if (found == turn.state.calls.end()) return;
  const std::string group = found->second.group;
  turn.state.calls.erase(found);
  RemoveIfUnwanted(turn, group);
}

void LapseCalls(Turn& turn) {
  std::vector<std::pair<CallId, PendingCall>> lapsed;
  for (const auto& entry : turn.state.calls) {
    if (entry.second.deadline_ms <= turn.now) lapsed.push_back(entry);
  }
  for (const auto& [id, call] : lapsed) {
    const Group& group = turn.state.groups.at(call.group);
    Answer(turn, id, NotReady(turn.state, group, call.after_epoch, turn.now));
    turn.state.calls.erase(id);
  }
  for (const auto& [id, call] : lapsed) RemoveIfUnwanted(turn, call.group);
}

void AnswerReadyCalls(Turn& turn, const Group& group) {
  auto& calls = turn.state.calls;
  for (auto it = calls.begin(); it != calls.end();) {
    if (it->second.group != group.name || !Satisfies(group, it->second.after_epoch)) {
      ++it;
      continue;
    }
    turn.Do(AnswerCall{it->first, absl::OkStatus(), ViewOf(turn.state, group)});
    it = calls.erase(it);
  }
}

void RefuseGroupCalls(Turn& turn, const std::string& group, const absl::Status& status) {
  AnswerGroupCalls(turn, group, status);
  RemoveIfUnwanted(turn, group);
}

void AnswerGroupCalls(Turn& turn, const std::string& group, const absl::Status& status) {
  auto& calls = turn.state.calls;
  for (auto it = calls.begin(); it != calls.end();) {
    if (it->second.group != group) {
      ++it;
      continue;
    }
    Answer(turn, it->first, status);
    it = calls.erase(it);
  }
}

}  // namespace annulus::coordinator
