// SPDX-License-Identifier: Apache-2.0
#include "server/worker/session_store.h"

#include <sys/random.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"

namespace annulus::worker {

std::string SessionStore::Open() {
  char bits[16];
  if (getrandom(bits, sizeof(bits), 0) != static_cast<ssize_t>(sizeof(bits))) return "";
  std::string id = absl::BytesToHexString(absl::string_view(bits, sizeof(bits)));
  std::lock_guard lock(mutex_);
  if (sessions_.size() >= kSessionsMax) return "";
  sessions_.emplace(id, std::make_shared<Session>());
  return id;
}

void SessionStore::Close(const std::string& session_id) {
  std::shared_ptr<Session> closed;  // its memory is given back outside the lock
  std::lock_guard lock(mutex_);
  const auto it = sessions_.find(session_id);
  if (it == sessions_.end()) return;
  closed = std::move(it->second);
  sessions_.erase(it);
}

absl::StatusOr<std::shared_ptr<Session>> SessionStore::Find(const std::string& session_id) const {
  std::lock_guard lock(mutex_);
  const auto it = sessions_.find(session_id);
  if (it == sessions_.end()) {
    return WithFaultInfo(
        absl::NotFoundError(absl::StrCat("no session \"", session_id, "\" on this worker")),
        {"SESSION_GONE", {}});
  }
  return it->second;
}

void SessionStore::DropRetainedBefore(const std::string& group, uint64_t epoch) {
  for (const auto& session : All()) session->DropRetainedBefore(group, epoch);
}

MemoryUse SessionStore::Use() const {
  MemoryUse use;
  for (const auto& session : All()) session->AddUse(&use);
  return use;
}

std::vector<std::shared_ptr<Session>> SessionStore::All() const {
  std::vector<std::shared_ptr<Session>> sessions;
  std::lock_guard lock(mutex_);
  for (const auto& [id, session] : sessions_) sessions.push_back(session);
  return sessions;
}

}  // namespace annulus::worker
