// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "server/coordinator/types.h"

namespace annulus::coordinator {

// What the reducer asks its owner to do. Those for one session must be carried out in order.

struct SendWelcome {
  SessionId session = 0;
  uint64_t term = 0;
  TimeMs heartbeat_ms = 0;
  TimeMs lease_ms = 0;
};

struct SendPrepare {
  SessionId session = 0;
  std::string group;
  uint64_t epoch = 0;
  int rank = 0;
  GroupOptions options;
  SharedRoster roster;
  SharedTopology topology;
};

struct SendConnect {
  SessionId session = 0;
  std::string group;
  uint64_t epoch = 0;
  SharedHandles handles;
  SharedHandles outer_handles;  // null: one transport serves both levels
};

struct SendFault {
  SessionId session = 0;
  Verdict verdict;
};

struct SendRelease {
  SessionId session = 0;
  std::string group;
  uint64_t epoch = 0;
};

// The session is over for the reducer: nothing more will be sent on it, nothing more is heard.
struct CloseSession {
  SessionId session = 0;
  absl::Status status;
};

// A group as others see it.
struct GroupView {
  std::string name;
  GroupOptions options;
  GroupPhase phase = GroupPhase::kWaiting;
  uint64_t term = 0;
  uint64_t epoch = 0;
  SharedRoster roster;      // null while waiting for workers
  SharedTopology topology;  // null while waiting for workers
  std::optional<Verdict> last_fault;
};

// The answer to an EnsureGroup: a READY group, or why not.
struct AnswerCall {
  CallId call = 0;
  absl::Status status;
  std::optional<GroupView> group;
};

enum class Counter {
  kGroupFaults,    // label: reason
  kStaleMessages,  // named an epoch that is over
};

struct CountMetric {
  Counter counter = Counter::kStaleMessages;
  std::string label;
};

// A group is READY again this long after its last epoch ended.
struct ObserveReform {
  TimeMs duration_ms = 0;
};

enum class LogLevel { kInfo, kWarning };

struct Log {
  LogLevel level = LogLevel::kInfo;
  std::string text;
};

using Action = std::variant<SendWelcome, SendPrepare, SendConnect, SendFault, SendRelease,
                            CloseSession, AnswerCall, CountMetric, ObserveReform, Log>;

}  // namespace annulus::coordinator
