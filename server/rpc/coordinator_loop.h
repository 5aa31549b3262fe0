// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "server/coordinator/action.h"
#include "server/coordinator/event.h"
#include "server/coordinator/state.h"

namespace annulus::rpc {

// The one thread that owns the coordinator's state: takes events in order, reduces them, carries
// out the actions in order, and ticks. Queries run between events, so they see a consistent state.
//
// The queue is bounded by its callers: each has at most one message in it (sessions read their next
// one when `done` is called, unary calls are counted).
class CoordinatorLoop {
 public:
  struct Callbacks {
    // Carries out one action. On the loop's thread; must not block.
    std::function<void(coordinator::Action&)> perform;
    // After each tick, for gauges and time limits. On the loop's thread; must not block.
    std::function<void(const coordinator::State&, coordinator::TimeMs now)> after_tick;
  };
  using Done = std::function<void()>;
  using Query = std::function<void(const coordinator::State&, coordinator::TimeMs now)>;

  static std::unique_ptr<CoordinatorLoop> Start(const coordinator::Settings& settings,
                                                uint64_t term, Callbacks callbacks);
  // Runs what was posted before, then ends the thread. Nothing may be posted from now on.
  virtual ~CoordinatorLoop() = default;

  // From any thread; does not block. `done` may be null; called on the loop's thread when the event
  // and its actions are through.
  virtual void Post(coordinator::Event event, Done done) = 0;
  virtual void Ask(Query query) = 0;

  // Milliseconds on the loop's clock.
  virtual coordinator::TimeMs Now() const = 0;
};

}  // namespace annulus::rpc
