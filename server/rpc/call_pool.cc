// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/call_pool.h"

#include <utility>

namespace annulus::rpc {

CallPool::CallPool(size_t threads, size_t queue_limit) : queue_limit_(queue_limit) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

CallPool::~CallPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = false;
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool CallPool::Submit(std::function<void()> job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    // A job that an idle thread is about to take does not wait.
    const size_t idle = threads_.size() - running_;
    if (!open_ || jobs_.size() >= queue_limit_ + idle) return false;
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
  return true;
}

void CallPool::Close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  open_ = false;
}

bool CallPool::AwaitIdle(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_until(lock, deadline, [this] { return jobs_.empty() && running_ == 0; });
}

void CallPool::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    ++running_;
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
    --running_;
    changed_.notify_all();
  }
}

}  // namespace annulus::rpc
