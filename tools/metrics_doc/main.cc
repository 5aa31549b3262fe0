// SPDX-License-Identifier: Apache-2.0
//
// Prints docs/metrics.md from the table of metrics:  annulus-metrics-doc > docs/metrics.md

#include <cstdio>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "server/metrics/metric_table.h"

namespace {

using annulus::metrics::Covers;
using annulus::metrics::Daemon;
using annulus::metrics::LabelValue;
using annulus::metrics::MetricLabel;
using annulus::metrics::MetricSpec;
using annulus::metrics::MetricTable;
using annulus::metrics::MetricType;
using annulus::metrics::MetricTypeName;

constexpr std::string_view kIntroduction =
    R"(# Metrics

<!-- Made by annulus-metrics-doc from server/metrics/metric_table.cc. Edit the table, not this page. -->

Every daemon serves `GET /metrics` (Prometheus text format 0.0.4) and `GET /healthz` ("ok" while the
process answers) on the address of `--metrics-listen`.

What holds for all of them:

- Base units: seconds and bytes. Time is exported as counters of seconds, so that PromQL forms the
  ratios over any window and any set of workers.
- Label sets are closed and every series is there from the start at zero: a series that is missing
  means that the daemon is. No session, request or group is ever a label.
- A value outside a label's set counts as `other` where the set has it; anything else that does not
  fit is dropped and counted in `annulus_metric_errors_total`. Metrics never fail a request.
- The counters of a running request advance step by step; what they come to does not depend on when
  they are scraped.

## What to ask

| question | PromQL |
|---|---|
| share of communication hidden under compute, over a ring | `1 - sum(rate(annulus_exposed_comm_seconds_total[1m])) / sum(rate(annulus_step_comm_seconds_total[1m]))` |
| which ring is exposed | `sum by (level) (rate(annulus_exposed_comm_seconds_total[1m]))` |
| share of the time a rank computes | `rate(annulus_step_compute_seconds_total[1m])` |
| who is late | `topk(3, sum by (peer) (rate(annulus_peer_wait_seconds_total[5m])))` |
| step time, 99th percentile | `histogram_quantile(0.99, sum by (le) (rate(annulus_step_duration_seconds_bucket[5m])))` |
| share of an outer hop that is hidden, on average | `rate(annulus_hop_duration_seconds_sum{level="outer",phase="compute"}[5m]) / ignoring(phase) rate(annulus_hop_duration_seconds_sum{level="outer",phase="comm"}[5m])` |
| calls that failed | `sum by (method, code) (rate(annulus_requests_total{code!="OK"}[5m]))` |

Overlap is 1 - exposed / comm, with exposed = active - compute and active the union of the time spent
computing and the time during which bytes move. Where nothing is communicated the ratio is empty.
)";

std::string Values(const MetricLabel& label) {
  if (label.values.empty()) return "fixed when the daemon starts";
  // A run of numbers, such as ranks, is told by its ends.
  size_t numbers = 0;
  while (numbers < label.values.size() && label.values[numbers].text == std::to_string(numbers)) {
    ++numbers;
  }
  std::string text;
  if (numbers > 3) text = absl::StrCat("`0` to `", numbers - 1, "`");
  for (size_t i = numbers > 3 ? numbers : 0; i < label.values.size(); ++i) {
    absl::StrAppend(&text, text.empty() ? "`" : ", `", std::string(label.values[i].text), "`");
  }
  return text;
}

std::string DaemonName(Daemon daemon) {
  switch (daemon) {
    case Daemon::kWorker:
      return "worker";
    case Daemon::kCoordinator:
      return "coordinator";
    case Daemon::kBoth:
      return "worker, coordinator";
  }
  return "";
}

void PrintSummary() {
  std::puts("\n## All metrics\n\n| metric | type | labels | exported by |\n|---|---|---|---|");
  for (const MetricSpec& spec : MetricTable()) {
    std::string labels;
    for (const MetricLabel& label : spec.labels) {
      absl::StrAppend(&labels, labels.empty() ? "" : ", ", std::string(label.name));
    }
    const std::string name(spec.name);
    std::printf("| [%s](#%s) | %s | %s | %s |\n", name.c_str(), name.c_str(),
                std::string(MetricTypeName(spec.type)).c_str(), labels.c_str(),
                DaemonName(spec.daemons).c_str());
  }
}

void PrintMetric(const MetricSpec& spec) {
  std::printf("\n## %s\n\n%s.\n\n", std::string(spec.name).c_str(), std::string(spec.help).c_str());
  std::printf("- %s%s%s, exported by: %s\n", std::string(MetricTypeName(spec.type)).c_str(),
              spec.unit.empty() ? "" : " of ", std::string(spec.unit).c_str(),
              DaemonName(spec.daemons).c_str());
  for (const MetricLabel& label : spec.labels) {
    std::printf("- `%s`: %s\n", std::string(label.name).c_str(), Values(label).c_str());
  }
  if (spec.type != MetricType::kHistogram) return;
  std::string bounds;
  for (double bound : spec.buckets) absl::StrAppend(&bounds, bounds.empty() ? "" : ", ", bound);
  std::printf("- buckets up to: %s\n", bounds.c_str());
}

}  // namespace

int main() {
  std::fputs(std::string(kIntroduction).c_str(), stdout);
  PrintSummary();
  for (const MetricSpec& spec : MetricTable()) PrintMetric(spec);
  return 0;
}
