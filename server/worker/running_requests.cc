// SPDX-License-Identifier: Apache-2.0
#include "server/worker/running_requests.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/worker/clock.h"

namespace annulus::worker {
RunningRequests::~RunningRequests() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  watchdog_.join();
}

RunningRequests::Place::~Place() {
  if (owner_ == nullptr) return;
  std::lock_guard lock(owner_->mutex_);
  owner_->running_.erase(at_);
}

void RunningRequests::Place::SetSteps(int steps) {
  std::lock_guard lock(owner_->mutex_);
  at_->steps = steps;
}

absl::StatusOr<RunningRequests::Place> RunningRequests::Enter(Running running) {
  std::lock_guard lock(mutex_);
  if (running_.size() >= static_cast<size_t>(most_)) {
    return WithFaultInfo(
        absl::ResourceExhaustedError(absl::StrCat("this worker runs ", running_.size(),
                                                  " requests, at most ", most_, " at once")),
        {"TOO_MANY_REQUESTS", {{"limit", absl::StrCat(most_)}}});
  }
  if (running_.empty()) wake_.notify_one();
  Place place;
  place.owner_ = this;
  place.at_ = running_.insert(running_.end(), std::move(running));
  return place;
}

std::vector<Progress> RunningRequests::List() const {
  std::lock_guard lock(mutex_);
  std::vector<Progress> list;
  list.reserve(running_.size());
  for (const Running& running : running_) {
    const RunControl& control = *running.control;
    list.push_back({running.fence, control.step(), running.steps, control.hop(),
                    control.waiting_for(), control.advances()});
  }
  return list;
}

void RunningRequests::Watch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (running_.empty()) {
      wake_.wait(lock, [this] { return stopping_ || !running_.empty(); });
    } else {
      wake_.wait_for(lock, std::chrono::nanoseconds(kPollNs), [this] { return stopping_; });
    }
    lock.unlock();
    PollAll();
    lock.lock();
  }
}

void RunningRequests::PollAll() {
  struct Seen {
    std::string request_id;
    std::shared_ptr<Group> group;
    StopReason reason;
  };
  std::vector<Seen> to_free;
  {
    std::lock_guard lock(mutex_);
    const int64_t now_ns = NowNs();
    for (Running& running : running_) {
      if (running.group->state() == Group::State::kOver) {
        running.control->Stop(StopReason::kEpochOver);
      }
      const StopReason reason = running.control->Poll(now_ns);
      const bool waits = running.control->waiting_for() >= 0;
      if (reason == StopReason::kNone || !waits || running.freed) continue;
      running.freed = true;
      to_free.push_back({running.fence.request_id, running.group, reason});
    }
  }
  for (const Seen& seen : to_free) {
    seen.group->Fail(absl::StrCat("request ", seen.request_id, " ended: ", Describe(seen.reason)));
  }
}

}  // namespace annulus::worker
