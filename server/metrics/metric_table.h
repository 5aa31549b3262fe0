// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace annulus::metrics {

// Every metric that a daemon exports, defined once: the exporter, docs/metrics.md and whoever
// checks dashboards read this table. To add one: an id here, a row in metric_table.cc, a call where
// it happens, then `annulus-metrics-doc > docs/metrics.md`.
enum class MetricId {
  kStepComputeSeconds,
  kStepCommSeconds,
  kStepActiveSeconds,
  kExposedCommSeconds,
  kHopDuration,
  kStepDuration,
  kPeerWaitSeconds,
  kCommBytes,
  kRpcPayloadBytes,
  kQueueDuration,
  kKvBytes,
  kWindowSize,
  kRingSize,
  kRingEpoch,
  kRequests,
  kRequestDuration,
  kStaleEpoch,
  kBuildInfo,
  kMetricErrors,
  kWorkers,
  kGroups,
  kReforms,
  kReformDuration,
  kHeartbeatAge,
  kPlansCached,
  kPlanRequests,
  kStrategySelected,
};

enum class MetricType { kCounter, kGauge, kHistogram };

enum class Daemon : uint8_t { kWorker = 1, kCoordinator = 2, kBoth = 3 };

// True if `which` names `daemon`.
bool Covers(Daemon which, Daemon daemon);

// Where an unknown value is counted, in the label sets that have it.
inline constexpr std::string_view kOtherValue = "other";

struct LabelValue {
  std::string_view text;
  Daemon daemons = Daemon::kBoth;  // the daemons that start with this value at zero
};

// A label with every value it can take. Empty `values`: fixed when the daemon starts (build_info).
struct MetricLabel {
  std::string_view name;
  std::vector<LabelValue> values;
};

struct MetricSpec {
  MetricId id;
  std::string_view name;
  MetricType type;
  Daemon daemons;
  std::string_view unit;
  std::string_view help;
  std::vector<MetricLabel> labels = {};
  std::vector<double> buckets = {};  // histograms: upper bounds, ascending, without +Inf
};

// In the order of MetricId.
std::span<const MetricSpec> MetricTable();
const MetricSpec& GetMetricSpec(MetricId id);

// Index of `value` in `label`'s values, else of "other", else nothing.
std::optional<size_t> FindLabelValue(const MetricLabel& label, std::string_view value);

std::string_view MetricTypeName(MetricType type);

}  // namespace annulus::metrics
