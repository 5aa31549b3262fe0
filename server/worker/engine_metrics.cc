// SPDX-License-Identifier: Apache-2.0
#include "server/worker/engine_metrics.h"

namespace annulus::worker {
namespace {

class RecordingObserver : public StepObserver {
 public:
  explicit RecordingObserver(std::shared_ptr<metrics::RequestRecorder> recorder)
      : recorder_(std::move(recorder)) {}
  void OnStep(const std::vector<metrics::Op>& ops, int64_t settled_ns) override {
    recorder_->RecordStep(ops, settled_ns);
  }

 private:
  const std::shared_ptr<metrics::RequestRecorder> recorder_;
};

}  // namespace

std::unique_ptr<StepObserver> EngineMetrics::OnStart(const AttendCall& call,
                                                     const metrics::TransportNames& transports) {
  auto recorder = std::make_shared<metrics::RequestRecorder>(*sink_, transports);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    running_[&call] = recorder;
  }
  return std::make_unique<RecordingObserver>(std::move(recorder));
}

void EngineMetrics::OnRequest(const AttendCall& call, const absl::Status&, const AttendAnswer&,
                              const metrics::Timeline& timeline) {
  // None for a request that was answered without being run: refused, or answered once before.
  const auto recorder = TakeRecorder(call);
  if (recorder != nullptr) recorder->Finish(timeline);
}

void EngineMetrics::OnStaleEpoch() { sink_->Increment(metrics::MetricId::kStaleEpoch, {}); }

void EngineMetrics::SetMemoryUse(const MemoryUse& use) {
  const auto set = [this](std::string_view kind, uint64_t bytes) {
    sink_->Set(metrics::MetricId::kKvBytes, {kind}, static_cast<double>(bytes));
  };
  set("leased", use.leased);
  set("uploaded", use.uploaded);
  set("retained", use.retained);
  set("scratch", use.scratch);
}

std::shared_ptr<metrics::RequestRecorder> EngineMetrics::TakeRecorder(const AttendCall& call) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = running_.find(&call);
  if (found == running_.end()) return nullptr;
  auto recorder = std::move(found->second);
  running_.erase(found);
  return recorder;
}

}  // namespace annulus::worker
