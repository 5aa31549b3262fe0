// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "server/metrics/metric_sink.h"
#include "server/metrics/timeline.h"

namespace annulus::metrics {

// Turns one request's timeline into the worker's metrics, while it runs or when it is over.
//
//   RequestRecorder recorder(sink, {"host", "nccl"});  // rank 0 by host, rank 1 by NCCL
//   ... per step, with the ops finished so far and the earliest time that may still change:
//   recorder.RecordStep(timeline.ops, earliest_post_of_an_unfinished_transfer_or_now_ns);
//   ... once:
//   recorder.Finish(timeline);
//
// However often RecordStep is called, the counters end at the same totals, those of Summarise.
// Not thread safe: one request, one thread. Cost of a call: O(n) in the ops so far, O(m log m) in
// those not yet settled.
class RequestRecorder {
 public:
  // `sink` outlives the recorder.
  RequestRecorder(MetricSink& sink, TransportNames transports);

  // Counts what happened before `settled_ns` and was not yet counted. Promise of the caller: every
  // op that reaches back before `settled_ns` is in `ops`. As a transfer moves no byte before it is
  // posted, `settled_ns` is the post time of the oldest unfinished transfer, or now.
  void RecordStep(std::span<const Op> ops, int64_t settled_ns);

  // Counts the rest, and the duration of every step.
  void Finish(const Timeline& timeline);

 private:
  void CountSeconds(std::span<const Op> ops, int64_t settled_ns);
  void CountHops(std::span<const Op> ops, int64_t settled_ns);

  MetricSink& sink_;
  const TransportNames transports_;
  int64_t counted_ns_ = std::numeric_limits<int64_t>::min();
};

// Counts a whole request at once.
void RecordRequest(MetricSink& sink, const Timeline& timeline, TransportNames transports);

}  // namespace annulus::metrics
