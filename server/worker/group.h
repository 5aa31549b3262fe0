// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "server/transport/transport.h"
#include "server/worker/engine.h"
#include "server/worker/wire_memory.h"

namespace annulus::worker {

// One group at one epoch, as this rank has it. The states only go forward:
//
//   PREPARED --Connect--> CONNECTING --> READY
//       \-------------------\--------------\---- Fault or Fail ---> OVER
//
// An epoch that is over stays over: whoever runs on it sees its transfers end with ABORTED, and
// the coordinator's verdict, when it comes, is what the callers are told. Thread safe.
class Group {
 public:
  enum class State { kPrepared, kConnecting, kReady, kOver };

  // `transport` is null for a group of one. It is known to `wire_memory` while the group lives.
  Group(GroupAssignment assignment, std::unique_ptr<transport::Transport> transport,
        std::shared_ptr<WireMemory> wire_memory);
  ~Group();

  const GroupAssignment& assignment() const { return assignment_; }
  transport::Transport* transport() const { return transport_.get(); }
  RankHandles handles() const;
  State state() const;

  // Blocks until connected to every peer or the CLOCK_MONOTONIC deadline. Harmless when READY;
  // FAILED_PRECONDITION when it is over or being connected. A failure does not end the epoch.
  absl::Status Connect(const std::vector<RankHandles>& handles, int64_t deadline_ns);

  // The coordinator's word: ends the epoch. The first verdict stays.
  void Fault(const FaultVerdict& verdict);
  // This rank's own failure: ends the epoch before there is a verdict.
  void Fail(const std::string& why);
  std::optional<FaultVerdict> verdict() const;
  // Waits for the verdict until the CLOCK_MONOTONIC deadline.
  std::optional<FaultVerdict> WaitForVerdict(int64_t deadline_ns) const;

  // Name of a rank's worker, "" if it was not told.
  std::string WorkerOf(int rank) const;

 private:
  absl::Status ConnectTransport(const std::vector<RankHandles>& handles, int64_t deadline_ns);

  const GroupAssignment assignment_;
  const std::shared_ptr<WireMemory> wire_memory_;
  const std::unique_ptr<transport::Transport> transport_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  State state_ = State::kPrepared;       // guarded by mutex_
  std::optional<FaultVerdict> verdict_;  // guarded by mutex_
};

}  // namespace annulus::worker
