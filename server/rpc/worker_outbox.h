// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

#include "annulus/v1/coordinator.pb.h"

namespace annulus::rpc {

// What waits to be written to the coordinator on the stream that is open now. Messages for an
// earlier stream are dropped: its epochs are over. Thread safe.
class WorkerOutbox {
 public:
  using Clock = std::chrono::steady_clock;

  struct Next {
    bool open = false;  // false: the stream is over
    std::deque<v1::WorkerMessage> messages;
  };

  // Begins stream number `stream`.
  void Open(uint64_t stream) {
    const std::lock_guard<std::mutex> lock(mutex_);
    stream_ = stream;
    open_ = true;
    messages_.clear();
  }

  void Close() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      open_ = false;
    }
    changed_.notify_all();
  }

  // For the stream of that number; dropped if another is open, or none, or too much waits.
  void Put(uint64_t stream, v1::WorkerMessage message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stream == stream_) PutLocked(std::move(message));
  }
  // For whichever stream is open.
  void Put(v1::WorkerMessage message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    PutLocked(std::move(message));
  }

  // Everything that waits, as soon as there is something, the stream is closed, Wake is called or
  // `until` is reached.
  Next Take(Clock::time_point until) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_until(lock, until, [this] {
      return !open_ || !messages_.empty() || std::exchange(woken_, false);
    });
    return Next{open_, std::exchange(messages_, {})};
  }

  void Wake() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      woken_ = true;
    }
    changed_.notify_all();
  }

 private:
  static constexpr size_t kMaxWaiting = 1024;

  void PutLocked(v1::WorkerMessage message) {
    if (!open_ || messages_.size() >= kMaxWaiting) return;
    messages_.push_back(std::move(message));
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t stream_ = 0;                     // guarded by mutex_
  bool open_ = false;                       // guarded by mutex_
  bool woken_ = false;                      // guarded by mutex_
  std::deque<v1::WorkerMessage> messages_;  // guarded by mutex_
};

}  // namespace annulus::rpc
