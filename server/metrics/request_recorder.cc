// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/request_recorder.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "server/metrics/sweep.h"

namespace annulus::metrics {
namespace {

std::string_view LevelName(Level level) { return level == Level::kOuter ? "outer" : "inner"; }

bool IsTransfer(OpKind kind) { return kind == OpKind::kSend || kind == OpKind::kReceive; }
bool IsCompute(OpKind kind) {
  return !IsTransfer(kind) && kind != OpKind::kWait && kind != OpKind::kCopy;
}

// An op that seems to end before it starts took no time.
int64_t EndOf(const Op& op) { return std::max(op.start_ns, op.end_ns); }

// Seconds of compute between any two moments from `since_ns` on, from ops in any order.
class ComputeClock {
 public:
  ComputeClock(std::span<const Op> ops, int64_t since_ns) {
    std::vector<Op> computes;
    for (const Op& op : ops) {
      if (IsCompute(op.kind) && op.end_ns > since_ns) computes.push_back(op);
    }
    Sweep(computes, {}, [this](const Instant& now) {
      if (!now.computing) return;
      runs_.push_back({now.begin_ns, now.end_ns, total_});
      total_ += now.end_ns - now.begin_ns;
    });
  }

  double SecondsBetween(int64_t begin_ns, int64_t end_ns) const {
    return 1e-9 * static_cast<double>(Before(end_ns) - Before(begin_ns));
  }

 private:
  struct Run {
    int64_t begin_ns, end_ns, before;
  };

  int64_t Before(int64_t time_ns) const {
    auto next = std::upper_bound(runs_.begin(), runs_.end(), time_ns,
                                 [](int64_t t, const Run& run) { return t < run.begin_ns; });
    if (next == runs_.begin()) return 0;
    const Run& run = *std::prev(next);
    return run.before + std::min(time_ns, run.end_ns) - run.begin_ns;
  }

  std::vector<Run> runs_;
  int64_t total_ = 0;
};

}  // namespace

RequestRecorder::RequestRecorder(MetricSink& sink, TransportNames transports)
    : sink_(sink), transports_(std::move(transports)) {}

void RequestRecorder::RecordStep(std::span<const Op> ops, int64_t settled_ns) {
  if (settled_ns <= counted_ns_) return;
  CountSeconds(ops, settled_ns);
  CountHops(ops, settled_ns);
  counted_ns_ = settled_ns;
}

void RequestRecorder::CountSeconds(std::span<const Op> ops, int64_t settled_ns) {
  std::vector<Op> open;
  for (const Op& op : ops) {
    if (op.end_ns > counted_ns_ && op.start_ns < settled_ns) open.push_back(op);
  }
  const int64_t cuts[] = {counted_ns_, settled_ns};
  Summary sum;
  std::map<int, double> waits;
  Sweep(open, cuts, [&](const Instant& now) {
    if (now.begin_ns < counted_ns_ || now.begin_ns >= settled_ns) return;
    AddInstant(now, sum);
    if (now.waiting_for_peer()) waits[now.waiting_for] += now.seconds();
  });
  sink_.Increment(MetricId::kStepComputeSeconds, {}, sum.compute_seconds);
  sink_.Increment(MetricId::kStepCommSeconds, {}, sum.comm_seconds);
  sink_.Increment(MetricId::kStepActiveSeconds, {}, sum.active_seconds);
  sink_.Increment(MetricId::kExposedCommSeconds, {"inner"}, sum.exposed_inner_seconds);
  sink_.Increment(MetricId::kExposedCommSeconds, {"outer"}, sum.exposed_outer_seconds);
  for (const auto& [peer, seconds] : waits) {
    sink_.Increment(MetricId::kPeerWaitSeconds, {std::to_string(peer)}, seconds);
  }
}

void RequestRecorder::CountHops(std::span<const Op> ops, int64_t settled_ns) {
  // An op that ends at the limit belongs to the next call, so that each is counted once.
  std::vector<const Op*> ended;
  int64_t since_ns = settled_ns;
  for (const Op& op : ops) {
    const int64_t end_ns = EndOf(op);
    if (IsTransfer(op.kind) && end_ns >= counted_ns_ && end_ns < settled_ns) {
      ended.push_back(&op);
      since_ns = std::min(since_ns, op.start_ns);
    }
  }
  if (ended.empty()) return;
  const ComputeClock compute(ops, since_ns);
  for (const Op* op : ended) {
    const bool sent = op->kind == OpKind::kSend;
    const auto peer = static_cast<size_t>(op->peer);
    const std::string_view transport = peer < transports_.size() ? transports_[peer] : kOtherValue;
    sink_.Increment(MetricId::kCommBytes, {transport, sent ? "sent" : "received"},
                    static_cast<double>(op->bytes));
    if (sent) continue;
    const int64_t end_ns = EndOf(*op);
    const double comm = 1e-9 * static_cast<double>((end_ns - op->start_ns));
    const double hidden = std::min(comm, compute.SecondsBetween(op->start_ns, end_ns));
    const std::string_view level = LevelName(op->level);
    sink_.Observe(MetricId::kHopDuration, {level, "comm"}, comm);
    sink_.Observe(MetricId::kHopDuration, {level, "compute"}, hidden);
    sink_.Observe(MetricId::kHopDuration, {level, "wait"}, comm - hidden);
  }
}

void RequestRecorder::Finish(const Timeline& timeline) {
  RecordStep(timeline.ops, std::numeric_limits<int64_t>::max());
  int last = -1;
  for (const Op& op : timeline.ops) last = std::max(last, op.step);
  if (last < 0) return;
  const std::vector<int64_t> starts = StepStarts(timeline.ops, last + 1);
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    sink_.Observe(MetricId::kStepDuration, {},
                  1e-9 * static_cast<double>(starts[s + 1] - starts[s]));
  }
}

void RecordRequest(MetricSink& sink, const Timeline& timeline, TransportNames transports) {
  RequestRecorder(sink, std::move(transports)).Finish(timeline);
}

}  // namespace annulus::metrics
