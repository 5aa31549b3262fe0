// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string_view>

#include "server/metrics/metric_table.h"

namespace annulus::metrics {

// What the layers below the exporter count into. Label values come in the order of the metric's
// labels in the table:
//
//   sink.Increment(MetricId::kRequests, {"Attend", "OK"});
//   sink.Set(MetricId::kRingSize, {}, 8);
//   sink.Observe(MetricId::kReformDuration, {}, 0.8);
//
// An observer never fails its caller: an unknown label value counts under "other" where the label
// has it; what else does not fit the table (wrong type, wrong number of labels, unknown value, a
// counter decremented, a value that is not finite) is dropped and counted in
// annulus_metric_errors_total. Thread safe; does not block.
class MetricSink {
 public:
  using Labels = std::initializer_list<std::string_view>;

  virtual ~MetricSink() = default;
  virtual void Increment(MetricId id, Labels labels, double by = 1) = 0;  // counters
  virtual void Set(MetricId id, Labels labels, double value) = 0;         // gauges
  virtual void Observe(MetricId id, Labels labels, double value) = 0;     // histograms
};

}  // namespace annulus::metrics
