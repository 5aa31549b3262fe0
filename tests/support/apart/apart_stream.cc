// SPDX-License-Identifier: Apache-2.0
#include "tests/support/apart/apart_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace annulus::testing_support {

ApartStream::~ApartStream() {
  {
    std::lock_guard lock(mutex_);
    wanted_ = enqueued_;
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ApartStream::Enqueue(std::function<absl::Status()> work) {
  std::lock_guard lock(mutex_);
  work_.push_back(std::move(work));
  ++enqueued_;
}

int64_t ApartStream::Mark() {
  std::lock_guard lock(mutex_);
  return enqueued_;
}

absl::Status ApartStream::Await(int64_t point, int64_t deadline_ns) {
  const std::chrono::steady_clock::time_point deadline{std::chrono::nanoseconds(deadline_ns)};
  std::unique_lock lock(mutex_);
  wanted_ = std::max(wanted_, point);
  changed_.notify_all();
  const auto reached = [&] { return done_ >= point; };
  if (!changed_.wait_until(lock, deadline, reached)) {
    return absl::DeadlineExceededError("the point is not reached by the deadline");
  }
  return failure_;
}

void ApartStream::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return done_ < wanted_ || stop_; });
    if (done_ >= wanted_) return;
    const auto work = std::move(work_.front());
    work_.pop_front();
    const bool broken = !failure_.ok();
    lock.unlock();
    const absl::Status did = broken ? absl::OkStatus() : work();
    lock.lock();
    failure_.Update(did);
    ++done_;
    changed_.notify_all();
  }
}

}  // namespace annulus::testing_support
