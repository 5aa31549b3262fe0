// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "server/metrics/metric_sink.h"
#include "server/metrics/request_recorder.h"
#include "server/worker/engine.h"

namespace annulus::worker {

// Counts what an engine does into the metrics, step by step while a request runs. A request is told
// from another, also from a replay of itself, by its AttendCall object, which the engine passes to
// OnStart and OnRequest. Thread safe.
class EngineMetrics : public EngineObserver {
 public:
  // `sink` outlives this and the engine that it observes.
  explicit EngineMetrics(metrics::MetricSink* sink) : sink_(sink) {}

  std::unique_ptr<StepObserver> OnStart(const AttendCall& call,
                                        const metrics::TransportNames& transports) override;
  void OnRequest(const AttendCall& call, const absl::Status& status, const AttendAnswer& answer,
                 const metrics::Timeline& timeline) override;
  void OnStaleEpoch() override;

  // Sets annulus_kv_bytes; call before the metrics are read.
  void SetMemoryUse(const MemoryUse& use);

 private:
  std::shared_ptr<metrics::RequestRecorder> TakeRecorder(const AttendCall& call);

  metrics::MetricSink* const sink_;
  std::mutex mutex_;
  // Guarded by mutex_.
  std::map<const AttendCall*, std::shared_ptr<metrics::RequestRecorder>> running_;
};

}  // namespace annulus::worker
