// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/src/region.h"

namespace annulus::client {

// Connects to a worker's region socket: a path, or with a leading '@' a name of the abstract
// namespace. The descriptor, non-blocking, is the caller's to close. NOT_FOUND: no such socket
// here, as on another host. RESOURCE_EXHAUSTED: no descriptor to be had.
absl::StatusOr<int> ConnectRegionSocket(const std::string& path);

// The regions that one worker of this host has leased in one session, over its UNIX socket
// (server/base/region_protocol.h). Thread safe. Every exchange has a deadline.
class RegionLeases {
 public:
  // Does not connect yet. `session_id`: 32 hex characters. `alive` says whether the session stands;
  // an exchange ends soon after it does not.
  RegionLeases(std::string socket_path, std::string session_id, std::function<bool()> alive);
  ~RegionLeases();
  RegionLeases(const RegionLeases&) = delete;
  RegionLeases& operator=(const RegionLeases&) = delete;

  // The worker holds the region when this returns OK; costs nothing when it does already.
  // NOT_FOUND: no such socket here, as on another host. UNAVAILABLE: the worker does not answer.
  // Else the worker's refusal.
  absl::Status Ensure(const Region& region, absl::Time deadline);
  // Best effort, within a quarter of a second: what cannot be removed goes with the session.
  void Remove(uint64_t region_id);

 private:
  absl::Status ConnectLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // `message`: a RegionRequest without its session, and what follows it.
  absl::Status ExchangeLocked(std::string message, int fd, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string socket_path_;
  const std::string session_id_;
  const std::function<bool()> alive_;
  absl::Mutex mutex_;
  int socket_ ABSL_GUARDED_BY(mutex_) = -1;
  std::map<uint64_t, uint64_t> leased_ ABSL_GUARDED_BY(mutex_);  // id -> generation
};

}  // namespace annulus::client
