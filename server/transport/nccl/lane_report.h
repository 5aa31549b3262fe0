// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "server/transport/nccl/fault.h"
#include "server/transport/nccl/nccl_api.h"

namespace annulus::transport::nccl {

// What the thread of a communicator has to tell.
struct LaneReport {
  enum class Kind {
    kIdMinted,
    kInitialised,
    kWarmed,
    kDone,     // everything of `go` has moved, from start_ns to end_ns (CLOCK_MONOTONIC)
    kFault,    // the communicator is broken; `go` is what it was at, 0 for none
    kStopped,  // nothing of it runs any more
  };
  Kind kind = Kind::kFault;
  annulusLevel level = ANNULUS_LEVEL_INNER;
  uint64_t go = 0;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  UniqueId id{};
  Fault fault;
};

// Where reports wait for the transport. Outlives it for threads that were left behind. Thread safe.
class ReportBox {
 public:
  explicit ReportBox(std::function<void()> wake) : wake_(std::move(wake)) {}

  void Put(LaneReport report) {
    std::lock_guard lock(mutex_);
    if (wake_ == nullptr) return;
    reports_.push_back(std::move(report));
    wake_();
  }
  std::vector<LaneReport> Take() {
    std::lock_guard lock(mutex_);
    return std::exchange(reports_, {});
  }
  // Nobody listens any more; `wake` is not called again.
  void Close() {
    std::lock_guard lock(mutex_);
    wake_ = nullptr;
  }

 private:
  std::mutex mutex_;
  std::function<void()> wake_;
  std::vector<LaneReport> reports_;
};

}  // namespace annulus::transport::nccl
