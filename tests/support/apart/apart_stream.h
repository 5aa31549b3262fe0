// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/status/status.h"

namespace annulus::testing_support {

// Work in order on a thread of its own, begun as late as it may be: when somebody waits for it.
// Enqueued from one thread at a time, waited for from any.
class ApartStream {
 public:
  ApartStream() : thread_([this] { Run(); }) {}
  ~ApartStream();  // runs what is left

  void Enqueue(std::function<absl::Status()> work);
  // The point behind all that was enqueued so far.
  int64_t Mark();
  // Runs everything up to the point. The first failure of this stream's work, whoever waits;
  // DEADLINE_EXCEEDED past the CLOCK_MONOTONIC time.
  absl::Status Await(int64_t point, int64_t deadline_ns);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<absl::Status()>> work_;  // guarded by mutex_, as all that follows
  int64_t enqueued_ = 0;
  int64_t done_ = 0;
  int64_t wanted_ = 0;  // run up to here
  bool stop_ = false;
  absl::Status failure_;
  std::thread thread_;
};

}  // namespace annulus::testing_support
