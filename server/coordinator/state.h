// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/coordinator/action.h"
#include "server/coordinator/event.h"
#include "server/coordinator/types.h"

namespace annulus::coordinator {

struct Worker {
  WorkerIdentity identity;
  bool live = false;
  SessionId session = 0;    // of the live or the last stream
  TimeMs last_beat_ms = 0;  // of anything heard
  TimeMs lost_ms = 0;
  uint64_t used_bytes = 0;
  std::vector<Progress> progress;  // of the last heartbeat
  std::set<std::string> groups;    // that it is a member of now
  // Incarnations that a newer process of the same name has displaced; newest last, few.
  std::deque<uint64_t> displaced;
};

struct Member {
  std::string worker;
  SessionId session = 0;  // the membership ends with it
  bool prepared = false;
  bool connected = false;
  std::string transport_handle;
  std::string outer_transport_handle;
  int last_step = -1;  // last heard of in this epoch
};

// Reports of this epoch that name a rank whose loss is not certain.
struct Suspicion {
  struct Report {
    int reporter = -1;
    int suspect = -1;  // -1: unknown
    std::string request_id;
    std::string message;
  };
  TimeMs opened_ms = 0;
  bool setup = false;           // came from a failed connect
  std::vector<Report> reports;  // one per reporter, first come
};

// A member of an epoch that is over and that has not been told to let go yet.
struct FormerMember {
  std::string worker;
  SessionId session = 0;
  uint64_t epoch = 0;
};

struct Group {
  std::string name;
  GroupOptions options;
  GroupPhase phase = GroupPhase::kWaiting;
  uint64_t epoch = 0;           // current, or last if waiting; 0: none yet
  std::vector<Member> members;  // in rank order; empty while waiting
  SharedRoster roster;
  SharedTopology topology;       // null while waiting
  TimeMs phase_deadline_ms = 0;  // kPreparing, kConnecting
  TimeMs ready_since_ms = 0;     // kReady
  bool was_ready = false;        // ever
  TimeMs retry_ms = 0;           // kWaiting: not before
  int failures = 0;              // in a row
  std::optional<Suspicion> suspicion;
  std::optional<Verdict> last_fault;
  std::optional<TimeMs> broken_ms;               // when the last epoch ended, until READY again
  std::map<std::string, TimeMs> avoid_until_ms;  // by worker
  std::vector<FormerMember> former;
};

struct PendingCall {
  std::string group;
  uint64_t after_epoch = 0;
  TimeMs deadline_ms = 0;
};

// All that the coordinator knows. Copyable: a simulation may keep snapshots.
struct State {
  uint64_t term = 0;
  // Epochs of removed groups; a group's first epoch is above it and above the term, so that no
  // epoch is ever used twice, not even by a coordinator started anew.
  uint64_t epoch_floor = 0;
  std::map<std::string, Worker> workers;                // by name, live and lately lost
  std::map<SessionId, std::string> sessions;            // live ones
  std::set<std::pair<std::string, std::string>> order;  // (node, name) of the live workers
  std::map<std::string, Group> groups;                  // by name
  std::map<CallId, PendingCall> calls;
  std::optional<TimeMs> last_event_ms;
};

GroupView ViewOf(const State& state, const Group& group);

}  // namespace annulus::coordinator
