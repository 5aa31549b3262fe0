// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "server/coordinator/action.h"
#include "server/coordinator/plan_cache.h"
#include "server/coordinator/state.h"
#include "server/metrics/metric_sink.h"

namespace annulus::rpc {

// The session that a Send action is for; 0 for any other.
coordinator::SessionId SessionOf(const coordinator::Action& action);

// What the coordinator lets others see of it: metrics and one log line per change.
class CoordinatorObserver {
 public:
  explicit CoordinatorObserver(metrics::MetricSink* sink) : sink_(sink) {}  // may be null

  // True if the action was a metric or a log line, and is done with.
  bool Observe(const coordinator::Action& action);
  // Sets the gauges, a few times a second.
  void AfterTick(const coordinator::State& state, coordinator::TimeMs now, size_t plans_cached);
  // Thread safe.
  void CountPlan(const coordinator::CheckedPlan& plan, const ring::Spec& asked, bool cached);

 private:
  void Count(const coordinator::CountMetric& count);

  metrics::MetricSink* const sink_;
  int ticks_ = 0;
};

}  // namespace annulus::rpc
