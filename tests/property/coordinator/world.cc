// SPDX-License-Identifier: Apache-2.0
#include "tests/property/coordinator/world.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace annulus::coordinator {
namespace {

constexpr TimeMs kStepMs = 10;
constexpr TimeMs kTickMs = 50;
constexpr TimeMs kVerdictMs = 1'500;

Settings SimSettings() {
  Settings settings;
  settings.prepare_timeout_ms = 1'500;
  settings.connect_timeout_ms = 2'000;
  settings.groups_max = 4;
  return settings;
}

}  // namespace

World::World(uint64_t seed, int workers) : settings_(SimSettings()), rng_(seed) {
  state_.term = 77;
  for (int i = 0; i < workers; ++i) {
    workers_.push_back({.name = absl::StrCat("w", i), .node = absl::StrCat("n", i / 2)});
  }
}

void World::Breach(const std::string& what) {
  if (breach.empty()) breach = absl::StrCat("at ", now_, " ms: ", what);
}

void World::Storm(TimeMs duration_ms) {
  stormy_ = true;
  for (const TimeMs end = now_ + duration_ms; now_ < end && breach.empty();) {
    if (Draw(12) == 0) Misfortune();
    Step();
  }
}

void World::Calm(TimeMs duration_ms) {
  stormy_ = false;
  for (SimWorker& worker : workers_) {
    worker.stopped = worker.stuck = false;
    worker.comes_back_ms = now_;
  }
  for (const TimeMs end = now_ + duration_ms; now_ < end && breach.empty();) Step();
}

void World::Step() {
  now_ += kStepMs;
  for (SimWorker& worker : workers_) {
    if (worker.stopped) continue;
    if (worker.session == 0 && now_ >= worker.comes_back_ms) Reconnect(worker);
    if (worker.session != 0 && now_ >= worker.next_beat_ms) {
      worker.next_beat_ms = now_ + settings_.heartbeat_ms + Draw(stormy_ ? 300 : 20);
      Give(WorkerHeartbeat{.session = worker.session});
    }
  }
  while (!mail_.empty() && mail_.begin()->first <= now_) {
    Delayed mail = std::move(mail_.begin()->second);
    mail_.erase(mail_.begin());
    SimWorker* sender = BySession(mail.session);
    if (sender == nullptr) continue;  // went down with its stream
    if (sender->stopped) {
      mail_.emplace(now_ + 100, std::move(mail));
    } else {
      Give(mail.event);
    }
  }
  if (now_ % kTickMs == 0) Give(Tick{});
  CheckState();
  CheckVerdictsInTime();
}

World::SimWorker* World::BySession(SessionId session) {
  for (SimWorker& worker : workers_) {
    if (worker.session == session) return &worker;
  }
  return nullptr;
}

void World::Give(const Event& event) {
  if (const auto* prepared = std::get_if<GroupPrepared>(&event);
      prepared && prepared->error.empty()) {
    said_prepared_[{prepared->group, prepared->epoch}].insert(prepared->session);
  }
  if (const auto* connected = std::get_if<GroupConnected>(&event);
      connected && connected->error.empty()) {
    said_connected_[{connected->group, connected->epoch}].insert(connected->session);
  }
  for (const Action& action : Reduce(settings_, state_, event, now_)) {
    Check(action);
    Carry(action);
  }
}

// ---- what the workers and the wires do ----

void World::Carry(const Action& action) {
  if (const auto* prepare = std::get_if<SendPrepare>(&action)) {
    GroupPrepared answer{prepare->session, prepare->group, prepare->epoch, "handle", ""};
    if (stormy_ && Draw(25) == 0) answer.error = "no memory";
    Answer(prepare->session, answer);
  } else if (const auto* connect = std::get_if<SendConnect>(&action)) {
    GroupConnected answer{connect->session, connect->group, connect->epoch, ""};
    if (stormy_ && Draw(25) == 0) answer.error = "peer does not answer";
    Answer(connect->session, answer);
  } else if (const auto* close = std::get_if<CloseSession>(&action)) {
    if (SimWorker* worker = BySession(close->session)) {
      worker->session = 0;
      worker->comes_back_ms = now_ + 50 + Draw(300);
    }
  }
}

void World::Answer(SessionId session, Event event) {
  const SimWorker* worker = BySession(session);
  if (worker == nullptr || worker->stuck) return;
  mail_.emplace(now_ + Draw(stormy_ ? 120 : 20), Delayed{session, std::move(event)});
}

void World::Reconnect(SimWorker& worker) {
  // Now and then the same process, come back from the dead, or a restarted one.
  if (Draw(2) == 0) ++worker.incarnation;
  worker.session = next_session_++;
  worker.next_beat_ms = now_;
  worker.stuck = stormy_ && Draw(20) == 0;
  Give(WorkerHello{worker.session,
                   {.name = worker.name,
                    .incarnation = worker.incarnation,
                    .address = worker.name,
                    .node = worker.node}});
}

void World::EndStream(SimWorker& worker) {
  const SessionId session = worker.session;
  worker.session = 0;
  worker.comes_back_ms = now_ + Draw(3'000);
  if (session != 0) Give(WorkerGone{session});
}

void World::Misfortune() {
  switch (Draw(8)) {
    case 0:
    case 1:
    case 2:
      return StrikeWorker();
    case 3:
    case 4:
      return StrikeGroup();
    case 5:
      if (Draw(6) == 0) Pause();
      return;
    default:
      return CallSomething();
  }
}

void World::StrikeWorker() {
  SimWorker& worker = workers_[Draw(static_cast<int>(workers_.size()))];
  switch (Draw(6)) {
    case 0:
      ++happened["killed"];
      worker.stopped = false;
      return EndStream(worker);
    case 1:
      ++happened["stopped"];
      worker.stopped = true;
      return;
    case 2:
      ++happened["woken"];
      worker.stopped = false;
      return;
    case 3: {
      // It forgets its stream and opens another before the first is known to be dead.
      ++happened["two streams"];
      if (worker.session == 0 || worker.stopped) return;
      worker.session = 0;
      return Reconnect(worker);
    }
    default:
      worker.stopped = false;
  }
}

void World::StrikeGroup() {
  std::vector<std::pair<std::string, uint64_t>> epochs;
  for (const auto& [name, group] : state_.groups) epochs.emplace_back(name, group.epoch);
  if (epochs.empty()) return;
  const auto [name, epoch] = epochs[Draw(static_cast<int>(epochs.size()))];
  const Group& group = state_.groups.at(name);
  if (group.members.empty()) return;
  const int size = static_cast<int>(group.members.size());
  const int reporter = Draw(size);
  const SimWorker* worker = BySession(group.members[reporter].session);
  if (worker == nullptr || worker->stopped) return;
  ++happened["reported"];
  const uint64_t named = Draw(10) == 0 ? epoch - 1 : epoch;
  if (named == epoch) suspected_.push_back({name, epoch, now_, paused_ms_});
  Give(FaultReport{.session = worker->session,
                   .group = name,
                   .epoch = named,
                   .suspect_rank = Draw(size + 2) - 1,
                   .step = Draw(4),
                   .request_id = "r",
                   .message = "no data"});
}

void World::CallSomething() {
  const std::string name = absl::StrCat("g", Draw(3));
  if (Draw(12) == 0) {
    ++happened["deleted"];
    return Give(DeleteGroup{name});
  }
  if (Draw(6) == 0 && !open_calls_.empty()) {
    ++happened["cancelled"];
    const CallId call = open_calls_.begin()->first;
    open_calls_.erase(call);
    return Give(CallCancelled{call});
  }
  const CallId call = next_call_++;
  const TimeMs deadline_ms = now_ + 100 + Draw(6'000);
  open_calls_[call] = deadline_ms;
  const auto known = last_epoch_.find(name);
  // Sizes differ by group, and now and then by mistake from call to call.
  const int size = static_cast<int>(name.back() - '0') + 1 + (Draw(15) == 0 ? 1 : 0);
  const uint64_t after = known != last_epoch_.end() && Draw(3) == 0 ? known->second : 0;
  Give(EnsureGroup{call, name, {.size = size, .window_size = 1}, after, deadline_ms});
}

void World::Pause() {
  ++happened["paused"];
  const TimeMs gap_ms = 400 + Draw(4'000);
  now_ += gap_ms - gap_ms % kTickMs;
  paused_ms_ += gap_ms;
  for (auto& [call, deadline_ms] : open_calls_) deadline_ms += gap_ms;
}

// ---- what must never happen ----

void World::Check(const Action& action) {
  if (const auto* prepare = std::get_if<SendPrepare>(&action)) {
    const auto key = std::pair(prepare->group, prepare->epoch);
    std::vector<std::string> names;
    for (const WorkerIdentity& member : *prepare->roster) names.push_back(member.name);
    const auto [known, fresh] = prepared_as_.emplace(key, names);
    if (fresh) {
      if (prepare->epoch <= std::max(last_epoch_[prepare->group], state_.term)) {
        Breach(absl::StrCat("epoch ", prepare->epoch, " of ", prepare->group, " does not grow"));
      }
      last_epoch_[prepare->group] = prepare->epoch;
    } else if (known->second != names) {
      Breach(absl::StrCat("two memberships of ", prepare->group, " at epoch ", prepare->epoch));
    }
  } else if (const auto* answer = std::get_if<AnswerCall>(&action)) {
    if (open_calls_.erase(answer->call) == 0) Breach("a call was answered that was not waiting");
    ++happened[answer->status.ok() ? "answered ready" : "answered with an error"];
    if (!answer->status.ok()) return;
    if (answer->group->phase != GroupPhase::kReady)
      Breach("answered with a group that is not READY");
  } else if (const auto* fault = std::get_if<SendFault>(&action)) {
    ++happened[FaultReasonName(fault->verdict.reason)];
    if (fault->verdict.culprit_worker.empty()) Breach("a verdict names nobody");
  } else if (const auto* close = std::get_if<CloseSession>(&action)) {
    closed_.insert(close->session);
  }
  if (const auto* prepare = std::get_if<SendPrepare>(&action);
      prepare != nullptr && closed_.count(prepare->session) != 0) {
    Breach("a closed session was told to prepare");
  }
}

void World::CheckState() {
  for (const auto& [name, group] : state_.groups) {
    if (group.phase == GroupPhase::kWaiting && !group.members.empty())
      Breach("waiting with members");
    for (const Member& member : group.members) {
      const auto live = state_.sessions.find(member.session);
      if (live == state_.sessions.end() || live->second != member.worker) {
        Breach(
            absl::StrCat(name, " is ", GroupPhaseName(group.phase), " with lost ", member.worker));
      }
      if (state_.workers.at(member.worker).groups.count(name) == 0)
        Breach("a member without its group");
      if (group.phase != GroupPhase::kReady) continue;
      const auto key = std::pair(name, group.epoch);
      if (said_prepared_[key].count(member.session) == 0 ||
          said_connected_[key].count(member.session) == 0) {
        Breach(absl::StrCat(name, " is READY though ", member.worker, " did not say so"));
      }
    }
  }
  for (const auto& [name, worker] : state_.workers) {
    if (!worker.live && !worker.groups.empty()) Breach("a lost worker is still a member");
  }
  for (const auto& [call, deadline_ms] : open_calls_) {
    if (now_ > deadline_ms + 2 * kTickMs) Breach(absl::StrCat("call ", call, " has no answer"));
  }
}

void World::CheckVerdictsInTime() {
  std::erase_if(suspected_, [&](const Suspected& suspected) {
    const auto group = state_.groups.find(suspected.group);
    const bool over = group == state_.groups.end() || group->second.epoch != suspected.epoch ||
                      group->second.members.empty();
    if (over) return true;
    const TimeMs waited_ms = now_ - suspected.reported_ms - (paused_ms_ - suspected.paused_ms);
    if (waited_ms > kVerdictMs) {
      Breach(absl::StrCat("no verdict on ", suspected.group, " after ", waited_ms, " ms"));
    }
    return false;
  });
}

std::string World::Unsettled() const {
  for (const auto& [name, group] : state_.groups) {
    if (static_cast<size_t>(group.options.size) > workers_.size()) continue;
    if (group.phase != GroupPhase::kReady) {
      return absl::StrCat(name, " is ", GroupPhaseName(group.phase), " at epoch ", group.epoch);
    }
  }
  if (!open_calls_.empty()) return absl::StrCat(open_calls_.size(), " calls without answer");
  if (state_.order.size() != workers_.size()) return "a healthy worker is not live";
  return "";
}

}  // namespace annulus::coordinator
