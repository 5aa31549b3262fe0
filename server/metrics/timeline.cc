// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/timeline.h"

#include <algorithm>

#include "server/metrics/sweep.h"

namespace annulus::metrics {

double Summary::overlap() const {
  return comm_seconds > 0 ? 1.0 - exposed_seconds / comm_seconds : 1.0;
}

Summary Summarise(const Timeline& timeline) {
  Summary sum;
  sum.wall_seconds = 1e-9 * static_cast<double>(timeline.end_ns - timeline.start_ns);
  for (const Op& op : timeline.ops) {
    if (op.kind != OpKind::kSend) continue;
    (op.level == Level::kOuter ? sum.bytes_sent_outer : sum.bytes_sent_inner) += op.bytes;
  }
  Sweep(timeline.ops, {}, [&sum](const Instant& now) { AddInstant(now, sum); });
  return sum;
}

std::vector<StepSummary> SummariseSteps(const Timeline& timeline, int steps) {
  std::vector<StepSummary> result(static_cast<size_t>(std::max(steps, 0)));
  for (size_t s = 0; s < result.size(); ++s) result[s].step = static_cast<int>(s);
  if (result.empty() || timeline.ops.empty()) return result;
  const std::vector<int64_t> starts = StepStarts(timeline.ops, steps);
  std::vector<Summary> sums(result.size());
  size_t step = 0;
  Sweep(timeline.ops, starts, [&](const Instant& now) {
    if (now.begin_ns < starts.front()) return;
    while (step + 1 < result.size() && starts[step + 1] <= now.begin_ns) ++step;
    AddInstant(now, sums[step]);
  });
  for (size_t s = 0; s < result.size(); ++s) {
    result[s].compute_seconds = sums[s].compute_seconds;
    result[s].comm_seconds = sums[s].comm_seconds;
    result[s].exposed_seconds = sums[s].exposed_seconds;
  }
  return result;
}

}  // namespace annulus::metrics
