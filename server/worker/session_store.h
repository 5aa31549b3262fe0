// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/worker/session.h"

namespace annulus::worker {

// The open sessions by id. Thread safe.
class SessionStore {
 public:
  static constexpr size_t kSessionsMax = 4096;

  // A new session's id: 128 random bits in hex; "" when kSessionsMax are open or there is no
  // randomness to be had.
  std::string Open();
  // Waits for nothing; unknown ids are no error.
  void Close(const std::string& session_id);
  // NOT_FOUND, reason SESSION_GONE.
  absl::StatusOr<std::shared_ptr<Session>> Find(const std::string& session_id) const;
  void DropRetainedBefore(const std::string& group, uint64_t epoch);
  // What all of them hold; `scratch` is left 0.
  MemoryUse Use() const;

 private:
  std::vector<std::shared_ptr<Session>> All() const;

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Session>> sessions_;  // guarded by mutex_
};

}  // namespace annulus::worker
