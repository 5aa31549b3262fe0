// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "server/coordinator/types.h"

namespace annulus::coordinator {

// Everything that can happen to the coordinator. Strings and counts are bounded by whoever makes
// the event; ranks, epochs and names may be anything.

struct WorkerHello {
  SessionId session = 0;
  WorkerIdentity identity;
};

struct WorkerHeartbeat {
  SessionId session = 0;
  uint64_t used_bytes = 0;
  std::vector<Progress> progress;
};

// The stream ended, for whatever reason.
struct WorkerGone {
  SessionId session = 0;
};

struct GroupPrepared {
  SessionId session = 0;
  std::string group;
  uint64_t epoch = 0;
  std::string transport_handle;
  std::string error;                   // not empty: could not
  std::string outer_transport_handle;  // "": one transport serves both levels
};

struct GroupConnected {
  SessionId session = 0;
  std::string group;
  uint64_t epoch = 0;
  std::string error;
};

struct FaultReport {
  SessionId session = 0;
  std::string group;
  uint64_t epoch = 0;
  int suspect_rank = -1;  // -1: unknown; the reporter's own rank: itself
  int step = -1;
  std::string request_id;
  std::string message;
};

struct EnsureGroup {
  CallId call = 0;
  std::string name;
  GroupOptions options;
  uint64_t after_epoch = 0;
  TimeMs deadline_ms = 0;  // the call is answered by then, with an error if need be
};

struct DeleteGroup {
  std::string name;
};

struct CallCancelled {
  CallId call = 0;
};

// Comes every 50 ms or so; lapses leases and deadlines.
struct Tick {};

using Event = std::variant<WorkerHello, WorkerHeartbeat, WorkerGone, GroupPrepared, GroupConnected,
                           FaultReport, EnsureGroup, DeleteGroup, CallCancelled, Tick>;

}  // namespace annulus::coordinator
