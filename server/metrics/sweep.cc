// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/sweep.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

namespace annulus::metrics {
namespace {

struct Edge {
  int64_t time_ns;
  int delta;     // +1 an op starts, -1 it ends, 0 a cut
  const Op* op;  // null for a cut
};

// How many ops of each sort are open at the sweep's present time.
struct Open {
  int computes = 0;
  int inner = 0;
  int outer = 0;
  std::multiset<std::pair<int64_t, int>> waits;  // (end, peer)

  void Apply(const Edge& edge) {
    if (edge.op == nullptr) return;
    switch (edge.op->kind) {
      case OpKind::kCompute:
      case OpKind::kAccumulate:
      case OpKind::kPrepare:
      case OpKind::kFinish:
        computes += edge.delta;
        break;
      case OpKind::kCopy:
        break;
      case OpKind::kSend:
      case OpKind::kReceive:
        (edge.op->level == Level::kOuter ? outer : inner) += edge.delta;
        break;
      case OpKind::kWait: {
        const std::pair<int64_t, int> wait{edge.op->end_ns, edge.op->peer};
        if (edge.delta > 0) {
          waits.insert(wait);
        } else {
          waits.erase(waits.find(wait));
        }
        break;
      }
    }
  }
};

std::vector<Edge> SortedEdges(std::span<const Op> ops, std::span<const int64_t> cuts) {
  std::vector<Edge> edges;
  edges.reserve(2 * ops.size() + cuts.size());
  for (const Op& op : ops) {
    if (op.end_ns <= op.start_ns) continue;
    edges.push_back({op.start_ns, +1, &op});
    edges.push_back({op.end_ns, -1, &op});
  }
  if (edges.empty()) return edges;
  for (int64_t cut : cuts) edges.push_back({cut, 0, nullptr});
  std::sort(edges.begin(), edges.end(),
            [](const Edge& a, const Edge& b) { return a.time_ns < b.time_ns; });
  return edges;
}

}  // namespace

void Sweep(std::span<const Op> ops, std::span<const int64_t> cuts,
           const std::function<void(const Instant&)>& visit) {
  const std::vector<Edge> edges = SortedEdges(ops, cuts);
  Open open;
  for (size_t i = 0; i < edges.size(); ++i) {
    open.Apply(edges[i]);
    if (i + 1 == edges.size() || edges[i + 1].time_ns == edges[i].time_ns) continue;
    Instant instant;
    instant.begin_ns = edges[i].time_ns;
    instant.end_ns = edges[i + 1].time_ns;
    instant.computing = open.computes > 0;
    instant.inner = open.inner > 0;
    instant.outer = open.outer > 0;
    instant.waiting = !open.waits.empty();
    if (instant.waiting) instant.waiting_for = open.waits.rbegin()->second;
    visit(instant);
  }
}

void AddInstant(const Instant& now, Summary& sum) {
  const double seconds = now.seconds();
  if (now.computing) sum.compute_seconds += seconds;
  if (now.communicating()) sum.comm_seconds += seconds;
  if (now.computing || now.communicating()) sum.active_seconds += seconds;
  if (now.exposed()) {
    sum.exposed_seconds += seconds;
    (now.outer ? sum.exposed_outer_seconds : sum.exposed_inner_seconds) += seconds;
  }
  if (now.waiting_for_peer()) sum.peer_wait_seconds += seconds;
}

std::vector<int64_t> StepStarts(std::span<const Op> ops, int steps) {
  std::vector<int64_t> starts(static_cast<size_t>(std::max(steps, 0)) + 1,
                              std::numeric_limits<int64_t>::max());
  int64_t end = std::numeric_limits<int64_t>::min();
  for (const Op& op : ops) {
    end = std::max(end, op.end_ns);
    if (op.step < 0 || op.step >= steps) continue;
    int64_t& start = starts[static_cast<size_t>(op.step)];
    start = std::min(start, op.start_ns);
  }
  starts.back() = end;
  for (size_t s = starts.size() - 1; s-- > 0;) starts[s] = std::min(starts[s], starts[s + 1]);
  return starts;
}

}  // namespace annulus::metrics
