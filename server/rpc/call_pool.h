// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace annulus::rpc {

// Threads for calls that block for long, so that the threads of the RPC library never do. Jobs
// start in the order in which they came. Thread safe.
class CallPool {
 public:
  // At most `threads` jobs run and `queue_limit` more wait. Both >= 1.
  CallPool(size_t threads, size_t queue_limit);
  // Runs what was submitted, then joins. Jobs must not outlast the caller's patience.
  ~CallPool();
  CallPool(const CallPool&) = delete;
  CallPool& operator=(const CallPool&) = delete;

  // False, and the job is dropped, when as many wait as may or after Close.
  bool Submit(std::function<void()> job);
  // Takes no more jobs.
  void Close();
  // Waits until nothing waits or runs. False: not so by `deadline`.
  bool AwaitIdle(std::chrono::steady_clock::time_point deadline);

 private:
  void Run();

  const size_t queue_limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;  // guarded by mutex_
  size_t running_ = 0;                      // guarded by mutex_
  bool open_ = true;                        // guarded by mutex_
  bool stopping_ = false;                   // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace annulus::rpc
