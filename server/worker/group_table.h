// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/worker/engine.h"
#include "server/worker/group.h"
#include "server/worker/group_closer.h"

namespace annulus::worker {

// The groups that this worker is a member of, one epoch of each. Epochs only grow. Thread safe;
// a group that is slow to open, connect or close holds up no other.
class GroupTable {
 public:
  static constexpr size_t kGroupsMax = 1024;

  // `options` outlives the table. device_ordinal: of the memory that transports are to move, -1:
  // the host's. wire_memory: what they are told of.
  GroupTable(const EngineOptions& options, int device_ordinal,
             std::shared_ptr<WireMemory> wire_memory)
      : options_(options), device_ordinal_(device_ordinal), wire_memory_(std::move(wire_memory)) {}
  ~GroupTable();

  // Opens the transport of a new epoch and ends the epoch before it. Repeating a call gives the
  // same handles. FAILED_PRECONDITION (STALE_EPOCH) for a lower epoch or one that is over,
  // and for a transport that this worker does not have.
  absl::StatusOr<RankHandles> Prepare(const GroupAssignment& assignment);
  absl::Status Connect(const std::string& group, uint64_t epoch,
                       const std::vector<RankHandles>& handles);
  void Fault(const FaultVerdict& verdict);
  void FaultAll(const std::string& reason);
  void Release(const std::string& group, uint64_t epoch);

  // The group at this epoch, ready or over. FAILED_PRECONDITION (STALE_EPOCH) for a lower epoch;
  // UNAVAILABLE (GROUP_NOT_READY) for one that this worker does not know yet.
  absl::StatusOr<std::shared_ptr<Group>> Find(const std::string& group, uint64_t epoch) const;

 private:
  struct Entry {
    uint64_t epoch = 0;            // highest known; never goes back
    std::shared_ptr<Group> group;  // null: being prepared, or released
  };
  absl::StatusOr<std::unique_ptr<transport::Transport>> OpenTransport(
      const GroupAssignment& assignment) const;
  absl::StatusOr<const annulusTransportV1*> FindTransport(const std::string& name) const;
  absl::Status Claim(const GroupAssignment& assignment, std::shared_ptr<Group>* before);

  const EngineOptions& options_;
  const int device_ordinal_;
  const std::shared_ptr<WireMemory> wire_memory_;
  GroupCloser closer_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // guarded by mutex_
};

}  // namespace annulus::worker
