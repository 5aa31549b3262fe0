// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/coordinator/reducer.h"

namespace annulus::coordinator {

// A simulated cluster around the real reducer: workers with a will of their own, messages that take
// their time, a clock that only moves when told. Everything follows from one seed. Each action of
// the reducer is checked against what must never happen; the first breach is kept in `breach`.
class World {
 public:
  World(uint64_t seed, int workers);

  // Random faults, calls and delays for that long.
  void Storm(TimeMs duration_ms);
  // No more faults: everyone comes back, beats and answers. Passes that much time.
  void Calm(TimeMs duration_ms);

  // Whether every group is READY on live workers, and every call that waited has its answer.
  std::string Unsettled() const;

  std::string breach;  // empty: none
  // How often each rare thing happened, to prove that the storms reach it.
  std::map<std::string, int> happened;

 private:
  struct SimWorker {
    std::string name;
    std::string node;
    uint64_t incarnation = 1;
    SessionId session = 0;  // 0: no stream
    bool stopped = false;   // SIGSTOP: no beat, no answer, the stream stands
    bool stuck = false;     // beats, but does not answer prepare and connect
    TimeMs comes_back_ms = 0;
    TimeMs next_beat_ms = 0;
  };
  struct Delayed {
    SessionId session;
    Event event;
  };
  struct Suspected {
    std::string group;
    uint64_t epoch;
    TimeMs reported_ms;
    TimeMs paused_ms;  // of all pauses until then
  };

  void Step();
  void Give(const Event& event);
  void Check(const Action& action);
  void CheckState();
  void CheckVerdictsInTime();
  void Breach(const std::string& what);

  void Carry(const Action& action);
  void Answer(SessionId session, Event event);
  void Misfortune();
  void StrikeWorker();
  void StrikeGroup();
  void CallSomething();
  void Pause();
  void Reconnect(SimWorker& worker);
  void EndStream(SimWorker& worker);

  int Draw(int below) { return static_cast<int>(rng_() % static_cast<uint64_t>(below)); }
  SimWorker* BySession(SessionId session);

  const Settings settings_;
  std::mt19937_64 rng_;
  State state_;
  TimeMs now_ = 1'000'000;
  TimeMs paused_ms_ = 0;
  bool stormy_ = true;
  SessionId next_session_ = 1;
  CallId next_call_ = 1;
  std::vector<SimWorker> workers_;
  std::multimap<TimeMs, Delayed> mail_;

  // What the checks remember.
  std::map<std::string, uint64_t> last_epoch_;  // by group name, for ever
  std::map<std::pair<std::string, uint64_t>, std::vector<std::string>> prepared_as_;
  std::map<std::pair<std::string, uint64_t>, std::set<SessionId>> said_prepared_;
  std::map<std::pair<std::string, uint64_t>, std::set<SessionId>> said_connected_;
  std::map<CallId, TimeMs> open_calls_;  // with their deadlines
  std::set<SessionId> closed_;
  std::vector<Suspected> suspected_;
};

}  // namespace annulus::coordinator
