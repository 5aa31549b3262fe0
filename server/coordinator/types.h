// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/ring/topology/topology.h"

namespace annulus::coordinator {

// Milliseconds on a monotonic clock of the caller's choice; only differences matter.
using TimeMs = int64_t;
// One worker stream; never reused, so that a late message of a closed stream meets nobody.
using SessionId = uint64_t;
// One waiting EnsureGroup call; never reused.
using CallId = uint64_t;

// Limits and waits. The defaults are the service's.
struct Settings {
  TimeMs lease_ms = 1000;     // a worker that does not beat for this long is lost
  TimeMs heartbeat_ms = 200;  // what workers are asked for
  // A report that names a beating suspect waits at most lease_ms + this for the real culprit.
  TimeMs suspicion_extra_ms = 200;
  // If every member beats this long after the first report, nobody's lease is about to lapse.
  TimeMs suspicion_settle_ms = 150;
  // A longer silence between two events is this process's own pause, not the workers' fault.
  TimeMs pause_gap_ms = 300;
  TimeMs prepare_timeout_ms = 10'000;
  TimeMs connect_timeout_ms = 20'000;
  // How long a worker blamed for being unreachable is chosen only when no other is free.
  TimeMs avoid_ms = 60'000;
  // Between the third and later failures in a row; doubles.
  TimeMs backoff_initial_ms = 100;
  TimeMs backoff_max_ms = 5'000;
  TimeMs stable_after_ms = 5'000;        // READY for this long: earlier failures are forgotten
  TimeMs lost_worker_kept_ms = 600'000;  // shown as LOST for this long
  int workers_max = 4096;
  int groups_max = 256;
  int calls_max = 1024;
};

// What a worker says of itself (WorkerHello).
struct WorkerIdentity {
  std::string name;
  uint64_t incarnation = 0;
  std::string address;
  std::string node;
  std::string host_id;
  std::string region_socket;
  std::string metrics_address;
  uint64_t memory_limit_bytes = 0;
  std::string compute_device;
  std::string transport;  // its first
  std::string version;
  ring::WorkerFacts facts;  // of its device, adapters and transports; name, node and host above
};

struct LinkModel {
  double bytes_per_second = 0;  // 0: not emulated
  double latency_seconds = 0;
  friend bool operator==(const LinkModel&, const LinkModel&) = default;
};

struct GroupOptions {
  int size = 1;            // N
  int window_size = 0;     // w; 0 stands for N until normalised
  int ranks_per_node = 0;  // 0: by the workers' nodes
  LinkModel inner_link;
  LinkModel outer_link;
  bool transfers_off = false;
  std::vector<std::string> members;  // in rank order; empty: chosen here
  std::string inner_transport;       // "": chosen here
  std::string outer_transport;
  friend bool operator==(const GroupOptions&, const GroupOptions&) = default;
};

// How far a running request has come on one rank (RequestProgress).
struct Progress {
  std::string group;
  uint64_t epoch = 0;
  std::string request_id;
  int step = 0;
  int steps = 0;
  int hop = -1;
  int waiting_for_rank = -1;  // -1: computing
  uint64_t advances = 0;
};

enum class FaultReason {
  kWorkerLost,       // its stream broke
  kWorkerSilent,     // its lease lapsed: stopped or cut off
  kPeerUnreachable,  // reported by others though it beats
  kRequestFailed,    // failed on its own
  kSetupFailed,      // could not prepare or connect
};
const char* FaultReasonName(FaultReason reason);  // as in the proto, e.g. "WORKER_LOST"

// Why an epoch ended.
struct Verdict {
  std::string group;
  uint64_t epoch = 0;
  int culprit_rank = -1;
  std::string culprit_worker;
  FaultReason reason = FaultReason::kWorkerLost;
  std::string message;
  int step = -1;  // the culprit's last known step; -1: unknown
};

enum class GroupPhase { kWaiting, kPreparing, kConnecting, kReady };
const char* GroupPhaseName(GroupPhase phase);

// The members of one epoch in rank order. Shared, for it goes to every one of them.
using Roster = std::vector<WorkerIdentity>;
using SharedRoster = std::shared_ptr<const Roster>;
using SharedTopology = std::shared_ptr<const ring::Topology>;
using SharedHandles = std::shared_ptr<const std::vector<std::string>>;

}  // namespace annulus::coordinator
