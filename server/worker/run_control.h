// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "server/worker/clock.h"

namespace annulus::worker {

// Why a request is told to stop before its end.
enum class StopReason { kNone, kCancelled, kDeadline, kHopTimeout, kEpochOver };

inline const char* Describe(StopReason reason) {
  switch (reason) {
    case StopReason::kNone:
      return "it was not told to stop";
    case StopReason::kCancelled:
      return "its caller cancelled it";
    case StopReason::kDeadline:
      return "its deadline passed";
    case StopReason::kHopTimeout:
      return "a hop took longer than the hop timeout";
    case StopReason::kEpochOver:
      return "the group's epoch is over";
  }
  return "unknown";
}

// What the thread of a running request and everyone else know of each other: progress one way,
// the wish to stop the other way. Thread safe, wait-free.
class RunControl {
 public:
  RunControl(int64_t deadline_ns, std::function<bool()> cancelled)
      : deadline_ns_(deadline_ns == 0 ? kNever : deadline_ns), cancelled_(std::move(cancelled)) {}

  int64_t deadline_ns() const { return deadline_ns_; }

  // ---- the request's thread ----
  void BeginStep(int step) { step_.store(step, std::memory_order_relaxed); }
  void Advance() { advances_.fetch_add(1, std::memory_order_relaxed); }
  void FinishHop(int hop) {
    hop_.store(hop, std::memory_order_relaxed);
    Advance();
  }
  void BeginWait(int peer, int64_t give_up_ns) {
    waiting_for_.store(peer, std::memory_order_relaxed);
    give_up_ns_.store(give_up_ns, std::memory_order_relaxed);
  }
  void EndWait() {
    waiting_for_.store(-1, std::memory_order_relaxed);
    give_up_ns_.store(kNever, std::memory_order_relaxed);
  }

  // ---- any thread ----
  // The first reason stays.
  void Stop(StopReason reason) {
    StopReason none = StopReason::kNone;
    stop_.compare_exchange_strong(none, reason);
  }
  StopReason stop_reason() const { return stop_.load(); }
  // Looks at the caller's wish, the deadline and the wait's bound, and stops where one is over.
  StopReason Poll(int64_t now_ns) {
    if (stop_reason() != StopReason::kNone) return stop_reason();
    if (cancelled_ && cancelled_()) Stop(StopReason::kCancelled);
    if (now_ns >= deadline_ns_) Stop(StopReason::kDeadline);
    if (now_ns >= give_up_ns_.load(std::memory_order_relaxed)) Stop(StopReason::kHopTimeout);
    return stop_reason();
  }

  int step() const { return step_.load(std::memory_order_relaxed); }
  int hop() const { return hop_.load(std::memory_order_relaxed); }
  int waiting_for() const { return waiting_for_.load(std::memory_order_relaxed); }
  uint64_t advances() const { return advances_.load(std::memory_order_relaxed); }

 private:
  const int64_t deadline_ns_;
  const std::function<bool()> cancelled_;
  std::atomic<StopReason> stop_{StopReason::kNone};
  std::atomic<int> step_{0};
  std::atomic<int> hop_{-1};
  std::atomic<int> waiting_for_{-1};
  std::atomic<int64_t> give_up_ns_{kNever};
  std::atomic<uint64_t> advances_{0};
};

}  // namespace annulus::worker
