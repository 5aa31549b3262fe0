// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/membership.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/coordinator/groups.h"

namespace annulus::coordinator {
namespace {

constexpr size_t kDisplacedKept = 8;

void Lose(Turn& turn, Worker& worker, FaultReason reason, const std::string& message) {
  worker.live = false;
  worker.lost_ms = turn.now;
  turn.state.sessions.erase(worker.session);
  turn.state.order.erase({worker.identity.node, worker.identity.name});
  turn.Warn(absl::StrCat("worker ", worker.identity.name, " lost: ", message));
  const std::set<std::string> groups = std::move(worker.groups);
  worker.groups.clear();
  for (const std::string& name : groups) {
    EndEpochForWorker(turn, name, worker.identity.name, reason, message);
  }
  worker.progress.clear();
  worker.used_bytes = 0;
}

void Refuse(Turn& turn, SessionId session, absl::Status status) {
  turn.Warn(absl::StrCat("hello refused: ", status.message()));
  turn.Do(CloseSession{session, std::move(status)});
}

// Room for one more name: the worker lost longest ago goes first.
void ForgetOldestLost(State& state, size_t workers_max) {
  if (state.workers.size() < workers_max) return;
  auto oldest = state.workers.end();
  for (auto it = state.workers.begin(); it != state.workers.end(); ++it) {
    if (it->second.live) continue;
    if (oldest == state.workers.end() || it->second.lost_ms < oldest->second.lost_ms) oldest = it;
  }
  if (oldest != state.workers.end()) state.workers.erase(oldest);
}

// Ends the older holder of the name. False: the newcomer is the one that has to go.
bool Displace(Turn& turn, Worker& holder, const WorkerHello& hello) {
  const std::string& name = hello.identity.name;
  const uint64_t incarnation = hello.identity.incarnation;
  const auto& displaced = holder.displaced;
  if (std::find(displaced.begin(), displaced.end(), incarnation) != displaced.end()) {
    Refuse(turn, hello.session,
           absl::AlreadyExistsError(absl::StrCat(
               "worker name '", name, "' was taken over by a newer process (incarnation ",
               holder.identity.incarnation, ")")));
    return false;
  }
  const bool same = holder.identity.incarnation == incarnation;
  const std::string why =
      same ? "it opened a new session" : absl::StrCat("displaced by incarnation ", incarnation);
  if (!same) {
    holder.displaced.push_back(holder.identity.incarnation);
    if (holder.displaced.size() > kDisplacedKept) holder.displaced.pop_front();
  }
  const SessionId old_session = holder.session;
  Lose(turn, holder, FaultReason::kWorkerLost, why);
  turn.Do(CloseSession{old_session, absl::AbortedError(why)});
  return true;
}

}  // namespace

void OnHello(Turn& turn, const WorkerHello& hello) {
  State& state = turn.state;
  const std::string& name = hello.identity.name;
  if (state.sessions.count(hello.session) != 0) {
    // Its groups must not outlive the stream: lose it as if the stream had broken.
    Refuse(turn, hello.session,
           absl::InvalidArgumentError("expected one hello per session, got two"));
    OnGone(turn, WorkerGone{hello.session});
    return;
  }
  if (state.order.size() >= static_cast<size_t>(turn.settings.workers_max)) {
    Refuse(turn, hello.session,
           absl::ResourceExhaustedError(
               absl::StrCat("at most ", turn.settings.workers_max, " workers, all taken")));
    return;
  }
  const auto found = state.workers.find(name);
  if (found == state.workers.end()) {
    ForgetOldestLost(state, turn.settings.workers_max);
  } else if (found->second.live && !Displace(turn, found->second, hello)) {
    return;
  }
  Worker& worker = state.workers[name];
  // One that was displaced and is accepted after all, its successor being lost, is so for good.
  std::erase(worker.displaced, hello.identity.incarnation);
  worker.identity = hello.identity;
  worker.live = true;
  worker.session = hello.session;
  worker.last_beat_ms = turn.now;
  worker.used_bytes = 0;
  worker.progress.clear();
  worker.groups.clear();
  state.sessions[hello.session] = name;
  state.order.insert({worker.identity.node, name});
  turn.Info(absl::StrCat("worker ", name, " joined: node ", worker.identity.node, ", ",
                         worker.identity.address, ", incarnation ", worker.identity.incarnation));
  turn.Do(
      SendWelcome{hello.session, state.term, turn.settings.heartbeat_ms, turn.settings.lease_ms});
}

Worker* Hear(Turn& turn, SessionId session) {
  const auto found = turn.state.sessions.find(session);
  if (found == turn.state.sessions.end()) return nullptr;
  Worker& worker = turn.state.workers.at(found->second);
  worker.last_beat_ms = turn.now;
  return &worker;
}

void OnHeartbeat(Turn& turn, const WorkerHeartbeat& heartbeat) {
  Worker* worker = Hear(turn, heartbeat.session);
  if (worker == nullptr) return;
  worker->used_bytes = heartbeat.used_bytes;
  worker->progress = heartbeat.progress;
  for (const Progress& progress : worker->progress) {
    NoteStep(turn.state, worker->identity.name, progress);
  }
}

void OnGone(Turn& turn, const WorkerGone& gone) {
  const auto found = turn.state.sessions.find(gone.session);
  if (found == turn.state.sessions.end()) return;
  Worker& worker = turn.state.workers.at(found->second);
  // Keepalive breaks the stream of a stopped worker before its lease lapses. A worker that died was
  // heard of a beat ago; one that was stopped or cut off was not.
  const TimeMs quiet_ms = turn.now - worker.last_beat_ms;
  if (quiet_ms > 2 * turn.settings.heartbeat_ms) {
    Lose(turn, worker, FaultReason::kWorkerSilent,
         absl::StrCat("silent for ", quiet_ms, " ms, then its stream ended"));
  } else {
    Lose(turn, worker, FaultReason::kWorkerLost, "its stream ended");
  }
}

void LapseLeases(Turn& turn) {
  std::vector<std::string> forget;
  for (auto& [name, worker] : turn.state.workers) {
    if (!worker.live) {
      if (turn.now - worker.lost_ms > turn.settings.lost_worker_kept_ms) forget.push_back(name);
      continue;
    }
    const TimeMs quiet_ms = turn.now - worker.last_beat_ms;
    if (quiet_ms < turn.settings.lease_ms) continue;
    const SessionId session = worker.session;
    const std::string why =
        absl::StrCat("silent for ", quiet_ms, " ms, its lease is ", turn.settings.lease_ms, " ms");
    Lose(turn, worker, FaultReason::kWorkerSilent, why);
    turn.Do(CloseSession{session, absl::UnavailableError(absl::StrCat("lease lapsed: ", why))});
  }
  for (const std::string& name : forget) turn.state.workers.erase(name);
}

bool IsLive(const State& state, const std::string& worker, SessionId session) {
  const auto found = state.sessions.find(session);
  return found != state.sessions.end() && found->second == worker;
}

}  // namespace annulus::coordinator
