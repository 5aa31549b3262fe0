// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "server/metrics/metric_sink.h"

namespace annulus::testing_support {

// A metrics sink that keeps what it was told, by metric and label values.
class RecordingSink final : public metrics::MetricSink {
 public:
  using Key = std::pair<metrics::MetricId, std::vector<std::string>>;

  void Increment(metrics::MetricId id, Labels labels, double by) override {
    const std::lock_guard lock(mutex_);
    sums_[KeyOf(id, labels)] += by;
  }
  void Set(metrics::MetricId id, Labels labels, double value) override {
    const std::lock_guard lock(mutex_);
    sums_[KeyOf(id, labels)] = value;
  }
  void Observe(metrics::MetricId id, Labels labels, double value) override {
    const std::lock_guard lock(mutex_);
    observations_[KeyOf(id, labels)].push_back(value);
  }

  // Counters and gauges; 0 if never touched.
  double Value(metrics::MetricId id, const std::vector<std::string>& labels = {}) const {
    const std::lock_guard lock(mutex_);
    const auto found = sums_.find({id, labels});
    return found == sums_.end() ? 0 : found->second;
  }
  // What a histogram was told, in order.
  std::vector<double> Observed(metrics::MetricId id,
                               const std::vector<std::string>& labels = {}) const {
    const std::lock_guard lock(mutex_);
    const auto found = observations_.find({id, labels});
    return found == observations_.end() ? std::vector<double>() : found->second;
  }

 private:
  static Key KeyOf(metrics::MetricId id, Labels labels) {
    return {id, std::vector<std::string>(labels.begin(), labels.end())};
  }

  mutable std::mutex mutex_;
  std::map<Key, double> sums_;
  std::map<Key, std::vector<double>> observations_;
};

}  // namespace annulus::testing_support
