// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/coordinator/reducer.h"

namespace annulus::coordinator {

// The reducer with a clock of its own and workers that do as they are told, for tests that tell a
// story: every action is kept, and each test looks for those it is about.
class Harness {
 public:
  static constexpr TimeMs kTickMs = 50;

  explicit Harness(const Settings& settings = {}) : settings_(settings) { state.term = 1000; }

  std::vector<Action> Do(const Event& event) {
    std::vector<Action> actions = Reduce(settings_, state, event, now);
    all.insert(all.end(), actions.begin(), actions.end());
    return actions;
  }

  // A worker says hello on a fresh session.
  SessionId Join(const std::string& name, const std::string& node = "n0",
                 uint64_t incarnation = 1) {
    const SessionId session = next_session_++;
    Do(WorkerHello{
        session, {.name = name, .incarnation = incarnation, .address = name + ":1", .node = node}});
    return session;
  }

  void Beat(SessionId session, std::vector<Progress> progress = {}) {
    Do(WorkerHeartbeat{session, 0, std::move(progress)});
  }

  // Time passes in ticks; those in `beating` beat at each.
  void Pass(TimeMs duration_ms, const std::vector<SessionId>& beating) {
    for (const TimeMs end = now + duration_ms; now < end;) {
      now += kTickMs;
      for (SessionId session : beating) Beat(session);
      Do(Tick{});
    }
  }

  CallId Ensure(const std::string& group, int size, int window = 0, uint64_t after_epoch = 0,
                TimeMs within_ms = 10'000, std::vector<std::string> members = {}) {
    const CallId call = next_call_++;
    Do(EnsureGroup{call,
                   group,
                   {.size = size, .window_size = window, .members = std::move(members)},
                   after_epoch,
                   now + within_ms});
    return call;
  }

  // Answers every prepare and connect of the group's epoch, in order, as its members would.
  void Settle(const std::string& group) {
    const uint64_t epoch = state.groups.at(group).epoch;
    for (const auto answer : {GroupPhase::kPreparing, GroupPhase::kConnecting}) {
      const std::vector<Member> members = state.groups.at(group).members;
      for (const Member& member : members) {
        if (answer == GroupPhase::kPreparing) {
          Do(GroupPrepared{member.session, group, epoch, "handle-" + member.worker, ""});
        } else {
          Do(GroupConnected{member.session, group, epoch, ""});
        }
      }
    }
  }

  const Group& group(const std::string& name) const { return state.groups.at(name); }

  std::vector<std::string> MembersOf(const std::string& name) const {
    std::vector<std::string> names;
    for (const Member& member : group(name).members) names.push_back(member.worker);
    return names;
  }

  template <typename Kind>
  std::vector<Kind> Seen() const {
    std::vector<Kind> found;
    for (const Action& action : all) {
      if (const Kind* one = std::get_if<Kind>(&action)) found.push_back(*one);
    }
    return found;
  }

  std::optional<AnswerCall> AnswerTo(CallId call) const {
    for (const AnswerCall& answer : Seen<AnswerCall>()) {
      if (answer.call == call) return answer;
    }
    return std::nullopt;
  }

  State state;
  TimeMs now = 5'000;
  std::vector<Action> all;

 private:
  const Settings settings_;
  SessionId next_session_ = 1;
  CallId next_call_ = 1;
};

}  // namespace annulus::coordinator
