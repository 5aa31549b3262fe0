// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/coordinator_observer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <type_traits>
#include <variant>

namespace annulus::rpc {
namespace {

using coordinator::GroupPhase;
using metrics::MetricId;

constexpr int kTicksPerGauge = 5;

}  // namespace

coordinator::SessionId SessionOf(const coordinator::Action& action) {
  return std::visit(
      [](const auto& one) -> coordinator::SessionId {
        if constexpr (requires { one.session; }) {
          return one.session;
        } else {
          return 0;
        }
      },
      action);
}

bool CoordinatorObserver::Observe(const coordinator::Action& action) {
  if (const auto* log = std::get_if<coordinator::Log>(&action)) {
    spdlog::log(
        log->level == coordinator::LogLevel::kWarning ? spdlog::level::warn : spdlog::level::info,
        "{}", log->text);
    return true;
  }
  if (const auto* reform = std::get_if<coordinator::ObserveReform>(&action)) {
    if (sink_ != nullptr) {
      sink_->Observe(MetricId::kReformDuration, {}, static_cast<double>(reform->duration_ms) / 1e3);
    }
    return true;
  }
  if (const auto* count = std::get_if<coordinator::CountMetric>(&action)) {
    if (sink_ != nullptr) Count(*count);
    return true;
  }
  return false;
}

void CoordinatorObserver::Count(const coordinator::CountMetric& count) {
  switch (count.counter) {
    case coordinator::Counter::kGroupFaults:
      return sink_->Increment(MetricId::kReforms, {count.label});
    case coordinator::Counter::kStaleMessages:
      return sink_->Increment(MetricId::kStaleEpoch, {});
  }
}

void CoordinatorObserver::AfterTick(const coordinator::State& state, coordinator::TimeMs now,
                                    size_t plans_cached) {
  if (sink_ == nullptr || ticks_++ % kTicksPerGauge != 0) return;
  coordinator::TimeMs oldest_ms = 0;
  for (const auto& [name, worker] : state.workers) {
    if (worker.live) oldest_ms = std::max(oldest_ms, now - worker.last_beat_ms);
  }
  std::map<GroupPhase, int> phases;
  for (const auto& [name, group] : state.groups) ++phases[group.phase];
  const double live = static_cast<double>(state.order.size());
  sink_->Set(MetricId::kWorkers, {"live"}, live);
  sink_->Set(MetricId::kWorkers, {"lost"}, static_cast<double>(state.workers.size()) - live);
  sink_->Set(MetricId::kGroups, {"waiting"}, phases[GroupPhase::kWaiting]);
  sink_->Set(MetricId::kGroups, {"preparing"}, phases[GroupPhase::kPreparing]);
  sink_->Set(MetricId::kGroups, {"connecting"}, phases[GroupPhase::kConnecting]);
  sink_->Set(MetricId::kGroups, {"ready"}, phases[GroupPhase::kReady]);
  sink_->Set(MetricId::kHeartbeatAge, {}, static_cast<double>(oldest_ms) / 1e3);
  sink_->Set(MetricId::kPlansCached, {}, static_cast<double>(plans_cached));
}

void CoordinatorObserver::CountPlan(const coordinator::CheckedPlan& plan, const ring::Spec& asked,
                                    bool cached) {
  if (sink_ == nullptr) return;
  sink_->Increment(MetricId::kPlanRequests, {cached ? "hit" : "miss"});
  sink_->Increment(MetricId::kStrategySelected, {plan.double_ring ? "double_ring" : "ring",
                                                 asked.window_size == 0 ? "default" : "requested"});
}

}  // namespace annulus::rpc
