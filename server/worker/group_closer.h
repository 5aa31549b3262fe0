// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "server/worker/group.h"

namespace annulus::worker {

// Destroys groups on a thread of its own once their last user is gone: closing a transport joins
// its threads, which no request and no command should wait for.
//
//   std::shared_ptr<Group> group = closer.Watch(std::make_unique<Group>(...));
//
// Thread safe. The destructor closes what is left; it must not run before the last group handed
// out is released.
class GroupCloser {
 public:
  GroupCloser() : thread_([this] { Run(); }) {}
  ~GroupCloser();
  GroupCloser(const GroupCloser&) = delete;
  GroupCloser& operator=(const GroupCloser&) = delete;

  std::shared_ptr<Group> Watch(std::unique_ptr<Group> group);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Group>> retired_;  // guarded by mutex_
  bool stopping_ = false;                       // guarded by mutex_
  std::thread thread_;
};

}  // namespace annulus::worker
