// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "server/worker/engine.h"
#include "server/worker/group.h"
#include "server/worker/run_control.h"

namespace annulus::worker {

// The requests that run now. A thread of its own looks at each every kPollNs: a request that waits
// for a peer though its caller has cancelled it, its deadline or the hop's bound has passed is
// freed from its wait by ending the group's epoch, and one whose epoch is over is told to stop.
// Thread safe.
class RunningRequests {
 public:
  static constexpr int64_t kPollNs = 20'000'000;

  explicit RunningRequests(int most) : most_(most), watchdog_([this] { Watch(); }) {}
  ~RunningRequests();
  RunningRequests(const RunningRequests&) = delete;
  RunningRequests& operator=(const RunningRequests&) = delete;

  struct Running {
    Fence fence;
    int steps = 0;
    std::shared_ptr<Group> group;
    std::shared_ptr<RunControl> control;
    bool freed = false;  // of its wait, by the watchdog
  };

  // Takes a place until destroyed.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept { *this = std::move(other); }
    Place& operator=(Place&& other) noexcept {
      std::swap(owner_, other.owner_);
      std::swap(at_, other.at_);
      return *this;
    }
    ~Place();
    void SetSteps(int steps);

   private:
    friend class RunningRequests;
    RunningRequests* owner_ = nullptr;
    std::list<Running>::iterator at_;
  };

  // RESOURCE_EXHAUSTED, reason TOO_MANY_REQUESTS.
  absl::StatusOr<Place> Enter(Running running);
  std::vector<Progress> List() const;

 private:
  void Watch();
  void PollAll();

  const int most_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::list<Running> running_;  // guarded by mutex_
  bool stopping_ = false;       // guarded by mutex_
  std::thread watchdog_;
};

}  // namespace annulus::worker
