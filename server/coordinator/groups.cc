// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/groups.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/coordinator/calls.h"
#include "server/coordinator/group_options.h"
#include "server/coordinator/membership.h"
#include "server/coordinator/placement.h"

namespace annulus::coordinator {
namespace {

// Failures in a row that are retried at once; later ones back off.
constexpr int kImmediateRetries = 2;
constexpr size_t kNamesLogged = 16;

std::string MemberList(const std::vector<std::string>& names) {
  if (names.size() <= kNamesLogged) return absl::StrJoin(names, " ");
  return absl::StrCat(names.front(), " .. ", names.back(), " (", names.size(), ")");
}

void LetGo(Turn& turn, const Group& group, const std::string& worker, SessionId session,
           uint64_t epoch) {
  const auto found = turn.state.workers.find(worker);
  if (found == turn.state.workers.end() || found->second.session != session) return;
  if (IsLive(turn.state, worker, session)) turn.Do(SendRelease{session, group.name, epoch});
}

void Leave(State& state, const Member& member, const std::string& group) {
  const auto found = state.workers.find(member.worker);
  if (found != state.workers.end() && found->second.session == member.session) {
    found->second.groups.erase(group);
  }
}

std::string ChoiceText(const ring::TransportChoice& choice) {
  return absl::StrCat(choice.name.empty() ? "-" : choice.name, " (", choice.reason, ")");
}

void Form(Turn& turn, Group& group, SharedTopology topology) {
  State& state = turn.state;
  group.epoch = std::max({state.term, state.epoch_floor, group.epoch}) + 1;
  group.phase = GroupPhase::kPreparing;
  group.phase_deadline_ms = turn.now + turn.settings.prepare_timeout_ms;
  auto roster = std::make_shared<Roster>();
  std::set<SessionId> seated;
  std::vector<std::string> names;
  for (const ring::Seat& seat : topology->seats) {
    const std::string& name = names.emplace_back(seat.facts.worker);
    Worker& worker = state.workers.at(name);
    worker.groups.insert(group.name);
    roster->push_back(worker.identity);
    group.members.push_back(Member{.worker = name, .session = worker.session});
    seated.insert(worker.session);
  }
  group.roster = roster;
  group.topology = std::move(topology);
  for (const FormerMember& former : group.former) {
    if (seated.count(former.session) != 0) continue;
    LetGo(turn, group, former.worker, former.session, former.epoch);
  }
  group.former.clear();
  for (size_t rank = 0; rank < group.members.size(); ++rank) {
    turn.Do(SendPrepare{group.members[rank].session, group.name, group.epoch,
                        static_cast<int>(rank), group.options, group.roster, group.topology});
  }
  turn.Info(absl::StrCat("group ", group.name, ": epoch ", group.epoch, " forming on ",
                         MemberList(names), "; inside nodes ", ChoiceText(group.topology->inner),
                         ", between nodes ", ChoiceText(group.topology->outer), ", window ",
                         group.topology->window.window_size, " (", group.topology->window.reason,
                         ")"));
}

void BeginConnecting(Turn& turn, Group& group) {
  auto handles = std::make_shared<std::vector<std::string>>();
  auto outer = std::make_shared<std::vector<std::string>>();
  for (const Member& member : group.members) {
    handles->push_back(member.transport_handle);
    outer->push_back(member.outer_transport_handle);
  }
  const bool by_level = std::any_of(outer->begin(), outer->end(),
                                    [](const std::string& handle) { return !handle.empty(); });
  group.phase = GroupPhase::kConnecting;
  group.phase_deadline_ms = turn.now + turn.settings.connect_timeout_ms;
  const SharedHandles shared = std::move(handles);
  const SharedHandles shared_outer = by_level ? SharedHandles(std::move(outer)) : nullptr;
  for (const Member& member : group.members) {
    turn.Do(SendConnect{member.session, group.name, group.epoch, shared, shared_outer});
  }
}

void BecomeReady(Turn& turn, Group& group) {
  group.phase = GroupPhase::kReady;
  group.ready_since_ms = turn.now;
  group.was_ready = true;
  if (group.broken_ms) turn.Do(ObserveReform{turn.now - *group.broken_ms});
  group.broken_ms.reset();
  turn.Info(absl::StrCat("group ", group.name, ": epoch ", group.epoch, " READY"));
  AnswerReadyCalls(turn, group);
}

// When the group may try again after this failure.
TimeMs RetryAt(const Turn& turn, const Group& group) {
  if (group.failures <= kImmediateRetries) return turn.now;
  TimeMs wait_ms = turn.settings.backoff_initial_ms;
  for (int i = kImmediateRetries + 1; i < group.failures; ++i) {
    wait_ms = std::min(2 * wait_ms, turn.settings.backoff_max_ms);
  }
  return turn.now + wait_ms;
}

void Disband(Turn& turn, Group& group) {
  for (const Member& member : group.members) {
    Leave(turn.state, member, group.name);
    group.former.push_back({member.worker, member.session, group.epoch});
  }
  group.members.clear();
  group.roster.reset();
  group.topology.reset();
  group.suspicion.reset();
  group.phase = GroupPhase::kWaiting;
}

}  // namespace

Seat FindSeat(Turn& turn, SessionId session, const std::string& group, uint64_t epoch) {
  const auto found = turn.state.groups.find(group);
  if (found != turn.state.groups.end() && found->second.epoch == epoch) {
    const std::vector<Member>& members = found->second.members;
    for (size_t rank = 0; rank < members.size(); ++rank) {
      if (members[rank].session == session) return {&found->second, static_cast<int>(rank)};
    }
  }
  turn.Count(Counter::kStaleMessages);
  return {};
}

void OnPrepared(Turn& turn, const GroupPrepared& prepared) {
  if (Hear(turn, prepared.session) == nullptr) return;
  const Seat seat = FindSeat(turn, prepared.session, prepared.group, prepared.epoch);
  if (seat.rank < 0 || seat.group->phase != GroupPhase::kPreparing) return;
  Group& group = *seat.group;
  if (!prepared.error.empty()) {
    EndEpoch(turn, group,
             Verdict{.culprit_rank = seat.rank,
                     .reason = FaultReason::kSetupFailed,
                     .message = absl::StrCat("could not prepare: ", prepared.error)});
    return;
  }
  group.members[seat.rank].prepared = true;
  group.members[seat.rank].transport_handle = prepared.transport_handle;
  group.members[seat.rank].outer_transport_handle = prepared.outer_transport_handle;
  const bool all = std::all_of(group.members.begin(), group.members.end(),
                               [](const Member& member) { return member.prepared; });
  if (all) BeginConnecting(turn, group);
}

void OnConnected(Turn& turn, const GroupConnected& connected) {
  if (Hear(turn, connected.session) == nullptr) return;
  const Seat seat = FindSeat(turn, connected.session, connected.group, connected.epoch);
  if (seat.rank < 0 || seat.group->phase != GroupPhase::kConnecting) return;
  Group& group = *seat.group;
  if (!connected.error.empty()) {
    // The peer it could not reach may be the one at fault: whoever it is shows within a lease.
    if (!group.suspicion) group.suspicion = Suspicion{.opened_ms = turn.now, .setup = true};
    group.suspicion->reports.push_back(
        {seat.rank, -1, "", absl::StrCat("could not connect: ", connected.error)});
    return;
  }
  group.members[seat.rank].connected = true;
  const bool all = std::all_of(group.members.begin(), group.members.end(),
                               [](const Member& member) { return member.connected; });
  if (all) BecomeReady(turn, group);
}

void FormGroups(Turn& turn) {
  std::vector<std::pair<std::string, absl::Status>> refused;
  for (auto& [name, group] : turn.state.groups) {
    if (group.phase != GroupPhase::kWaiting || turn.now < group.retry_ms) continue;
    auto topology = PlaceMembers(turn.state, group, turn.now);
    if (topology.ok()) {
      Form(turn, group, *std::move(topology));
    } else if (absl::IsFailedPrecondition(topology.status())) {
      // Waiting does not help those who ask, but other workers may come.
      group.retry_ms = turn.now + turn.settings.backoff_max_ms;
      refused.emplace_back(name, topology.status());
    }
  }
  for (const auto& [name, why] : refused) RefuseGroupCalls(turn, name, why);
}

void LapsePhases(Turn& turn) {
  for (auto& [name, group] : turn.state.groups) {
    const bool preparing = group.phase == GroupPhase::kPreparing;
    if (!preparing && group.phase != GroupPhase::kConnecting) continue;
    if (turn.now < group.phase_deadline_ms) continue;
    const auto late = std::find_if(
        group.members.begin(), group.members.end(),
        [&](const Member& member) { return preparing ? !member.prepared : !member.connected; });
    const TimeMs limit_ms =
        preparing ? turn.settings.prepare_timeout_ms : turn.settings.connect_timeout_ms;
    EndEpoch(turn, group,
             Verdict{.culprit_rank = static_cast<int>(late - group.members.begin()),
                     .reason = FaultReason::kSetupFailed,
                     .message = absl::StrCat("no answer to ", preparing ? "prepare" : "connect",
                                             " within ", limit_ms, " ms")});
  }
}

void EndEpochForWorker(Turn& turn, const std::string& group, const std::string& worker,
                       FaultReason reason, const std::string& message) {
  const auto found = turn.state.groups.find(group);
  if (found == turn.state.groups.end()) return;
  const std::vector<Member>& members = found->second.members;
  const auto member = std::find_if(members.begin(), members.end(),
                                   [&](const Member& m) { return m.worker == worker; });
  if (member == members.end()) return;
  EndEpoch(turn, found->second,
           Verdict{.culprit_rank = static_cast<int>(member - members.begin()),
                   .reason = reason,
                   .message = message});
}

void EndEpoch(Turn& turn, Group& group, Verdict verdict) {
  const Member& culprit = group.members.at(verdict.culprit_rank);
  verdict.group = group.name;
  verdict.epoch = group.epoch;
  verdict.culprit_worker = culprit.worker;
  verdict.step = culprit.last_step;
  verdict.message = absl::StrCat("rank ", verdict.culprit_rank, " (worker ", culprit.worker,
                                 "): ", verdict.message);
  for (const Member& member : group.members) {
    if (IsLive(turn.state, member.worker, member.session)) {
      turn.Do(SendFault{member.session, verdict});
    }
  }
  const bool stable = group.phase == GroupPhase::kReady &&
                      turn.now - group.ready_since_ms >= turn.settings.stable_after_ms;
  group.failures = stable ? 1 : group.failures + 1;
  group.retry_ms = RetryAt(turn, group);
  if (verdict.reason == FaultReason::kPeerUnreachable ||
      verdict.reason == FaultReason::kSetupFailed) {
    group.avoid_until_ms[verdict.culprit_worker] = turn.now + turn.settings.avoid_ms;
  }
  if (!group.broken_ms) group.broken_ms = turn.now;
  Disband(turn, group);
  turn.Count(Counter::kGroupFaults, FaultReasonName(verdict.reason));
  turn.Warn(absl::StrCat("group ", group.name, ": epoch ", group.epoch, " over, ",
                         FaultReasonName(verdict.reason), ": ", verdict.message));
  group.last_fault = std::move(verdict);
}

void NoteStep(State& state, const std::string& worker, const Progress& progress) {
  const auto found = state.groups.find(progress.group);
  if (found == state.groups.end() || found->second.epoch != progress.epoch) return;
  for (Member& member : found->second.members) {
    if (member.worker == worker) member.last_step = progress.step;
  }
}

void RemoveGroup(Turn& turn, const std::string& name, const absl::Status& status) {
  const auto found = turn.state.groups.find(name);
  if (found == turn.state.groups.end()) return;
  Group& group = found->second;
  Disband(turn, group);
  for (const FormerMember& former : group.former) {
    LetGo(turn, group, former.worker, former.session, former.epoch);
  }
  turn.state.epoch_floor = std::max(turn.state.epoch_floor, group.epoch);
  AnswerGroupCalls(turn, name, status);
  turn.Info(absl::StrCat("group ", name, ": removed at epoch ", group.epoch));
  turn.state.groups.erase(found);
}

}  // namespace annulus::coordinator
