// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/reducer.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "server/coordinator/calls.h"
#include "server/coordinator/groups.h"
#include "server/coordinator/membership.h"
#include "server/coordinator/suspicion.h"
#include "server/coordinator/turn.h"

namespace annulus::coordinator {
namespace {

// What was not heard while this process stood still counts against nobody.
void AbsorbPause(Turn& turn) {
  State& state = turn.state;
  const TimeMs gap_ms = state.last_event_ms ? turn.now - *state.last_event_ms : 0;
  state.last_event_ms = turn.now;
  if (gap_ms <= turn.settings.pause_gap_ms) return;
  for (auto& [name, worker] : state.workers) {
    if (worker.live) worker.last_beat_ms += gap_ms;
  }
  for (auto& [name, group] : state.groups) {
    group.phase_deadline_ms += gap_ms;
    if (group.suspicion) group.suspicion->opened_ms += gap_ms;
  }
  turn.Warn(absl::StrCat("this process stood still for ", gap_ms, " ms: leases extended"));
}

struct Dispatch {
  Turn& turn;
  void operator()(const WorkerHello& event) { OnHello(turn, event); }
  void operator()(const WorkerHeartbeat& event) { OnHeartbeat(turn, event); }
  void operator()(const WorkerGone& event) { OnGone(turn, event); }
  void operator()(const GroupPrepared& event) { OnPrepared(turn, event); }
  void operator()(const GroupConnected& event) { OnConnected(turn, event); }
  void operator()(const FaultReport& event) { OnFaultReport(turn, event); }
  void operator()(const EnsureGroup& event) { OnEnsureGroup(turn, event); }
  void operator()(const DeleteGroup& event) { OnDeleteGroup(turn, event); }
  void operator()(const CallCancelled& event) { OnCallCancelled(turn, event); }
  void operator()(const Tick&) {
    // Leases first: certain evidence goes before suspicion.
    LapseLeases(turn);
    DecideSuspicions(turn);
    LapsePhases(turn);
    LapseCalls(turn);
  }
};

}  // namespace

GroupView ViewOf(const State& state, const Group& group) {
  return GroupView{.name = group.name,
                   .options = group.options,
                   .phase = group.phase,
                   .term = state.term,
                   .epoch = group.epoch,
                   .roster = group.roster,
                   .topology = group.topology,
                   .last_fault = group.last_fault};
}

std::vector<Action> Reduce(const Settings& settings, State& state, const Event& event, TimeMs now) {
  Turn turn{settings, state, now, {}};
  AbsorbPause(turn);
  std::visit(Dispatch{turn}, event);
  if (!std::holds_alternative<WorkerHeartbeat>(event)) FormGroups(turn);
  return std::move(turn.actions);
}

}  // namespace annulus::coordinator
