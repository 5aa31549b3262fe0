// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/metrics/metric_sink.h"

namespace annulus::rpc {

// Counts one call in annulus_requests_total and annulus_request_duration_seconds when it ends.
class CallRecord {
 public:
  // `method` is a literal. `sink` may be null.
  CallRecord(metrics::MetricSink* sink, std::string_view method)
      : sink_(sink), method_(method), start_(std::chrono::steady_clock::now()) {}

  double SecondsSoFar() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  // Once.
  void End(const absl::Status& status) {
    if (sink_ == nullptr) return;
    sink_->Increment(metrics::MetricId::kRequests,
                     {method_, absl::StatusCodeToString(status.code())});
    sink_->Observe(metrics::MetricId::kRequestDuration, {method_}, SecondsSoFar());
  }

 private:
  metrics::MetricSink* sink_;
  std::string_view method_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace annulus::rpc
