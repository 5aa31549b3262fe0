// SPDX-License-Identifier: Apache-2.0
#include "client/cli/trace_file.h"

#include "absl/strings/str_cat.h"

namespace annulus::cli {
namespace {

trace::OpKind KindOf(client::TimelineOp::Kind kind) {
  switch (kind) {
    case client::TimelineOp::Kind::kCompute:
      return trace::OpKind::kCompute;
    case client::TimelineOp::Kind::kSend:
      return trace::OpKind::kSend;
    case client::TimelineOp::Kind::kReceive:
      return trace::OpKind::kReceive;
    case client::TimelineOp::Kind::kWait:
      return trace::OpKind::kWait;
    case client::TimelineOp::Kind::kAccumulate:
      return trace::OpKind::kAccumulate;
    case client::TimelineOp::Kind::kPrepare:
      return trace::OpKind::kPrepare;
    case client::TimelineOp::Kind::kFinish:
      return trace::OpKind::kFinish;
    case client::TimelineOp::Kind::kCopy:
      break;
  }
  return trace::OpKind::kCopy;
}

// The ops of one call, added to the ranks they belong to.
void AddCall(const client::AttendReport& report, trace::Trace* out) {
  for (const client::RankReport& rank : report.ranks) {
    const auto index = static_cast<size_t>(rank.rank);
    if (index >= out->ranks.size()) continue;
    for (const client::TimelineOp& op : rank.timeline) {
      out->ranks[index].ops.push_back({KindOf(op.kind), op.step,
                                       op.outer ? trace::Level::kOuter : trace::Level::kInner,
                                       op.peer, rank.start_monotonic_ns + op.start_ns,
                                       rank.start_monotonic_ns + op.end_ns, op.bytes, op.label});
    }
  }
}

}  // namespace

trace::Trace TraceOf(const RunFlags& flags, const RunResult& result) {
  const client::AttendReport& forward = result.best.forward;
  trace::Trace out;
  out.title = absl::StrCat(forward.ranks.size(), " ranks, ", result.problem.query_length,
                           " tokens, ", flags.shape.mask, ", ", flags.shape.layout,
                           flags.backward ? ", forward and backward" : "");
  out.metadata["plan_digest"] = forward.plan_digest;
  if (result.best.backward) {
    out.metadata["backward_plan_digest"] = result.best.backward->plan_digest;
  }
  if (flags.transfers_off) out.metadata["transfers"] = "off";
  if (!flags.emulate_link.empty()) out.metadata["emulated_link"] = flags.emulate_link;
  for (const client::RankReport& rank : forward.ranks) {
    out.ranks.push_back({rank.rank, rank.worker, rank.node, rank.timing.overlap_ratio(), {}});
  }
  AddCall(forward, &out);
  if (result.best.backward) AddCall(*result.best.backward, &out);
  return out;
}

}  // namespace annulus::cli
