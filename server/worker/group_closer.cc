// SPDX-License-Identifier: Apache-2.0
#include "server/worker/group_closer.h"

#include <utility>

namespace annulus::worker {

GroupCloser::~GroupCloser() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  thread_.join();
}

std::shared_ptr<Group> GroupCloser::Watch(std::unique_ptr<Group> group) {
  return std::shared_ptr<Group>(group.release(), [this](Group* retired) {
    std::lock_guard lock(mutex_);
    retired_.emplace_back(retired);
    wake_.notify_one();
  });
}

void GroupCloser::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !retired_.empty(); });
    if (retired_.empty()) return;
    std::unique_ptr<Group> group = std::move(retired_.front());
    retired_.pop_front();
    lock.unlock();
    group.reset();
    lock.lock();
  }
}

}  // namespace annulus::worker
