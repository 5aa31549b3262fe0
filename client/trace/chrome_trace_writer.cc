// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/io/atomic_file.h"
#include "client/trace/chrome_trace.h"

namespace annulus::trace {
namespace {

using Json = nlohmann::json;

std::string Text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Nanoseconds as microseconds, exactly.
std::string Microseconds(int64_t ns) { return absl::StrFormat("%d.%03d", ns / 1000, ns % 1000); }

// Ops that share a track of the viewer, in the order in which tracks stand.
struct Track {
  int order;
  Level level;
  friend bool operator<(const Track& a, const Track& b) {
    return std::pair(a.order, a.level) < std::pair(b.order, b.level);
  }
};

Track TrackOf(const Op& op) {
  switch (op.kind) {
    case OpKind::kWait:
      return {1, Level::kInner};
    case OpKind::kReceive:
      return {2, op.level};
    case OpKind::kSend:
      return {3, op.level};
    default:
      return {0, Level::kInner};
  }
}

std::string TrackName(const Track& track, int lane, bool two_rings) {
  static constexpr std::string_view kNames[] = {"compute", "wait", "receive", "send"};
  std::string name(kNames[track.order]);
  if (track.order >= 2 && two_rings)
    absl::StrAppend(&name, " ", std::string(LevelName(track.level)));
  if (lane > 0) absl::StrAppend(&name, " (", lane + 1, ")");
  return name;
}

std::string OpName(const Op& op) {
  const std::string kind(OpKindName(op.kind));
  switch (op.kind) {
    case OpKind::kSend:
      return absl::StrCat(op.label, " to rank ", op.peer);
    case OpKind::kReceive:
      return absl::StrCat(op.label, " from rank ", op.peer);
    case OpKind::kWait:
      return absl::StrCat("wait for rank ", op.peer);
    case OpKind::kCopy:
      return absl::StrCat(op.label, " ", op.step);
    default:
      return absl::StrCat(kind, " ", op.step);
  }
}

class Writer {
 public:
  explicit Writer(const Trace& trace) : trace_(trace), begin_ns_(SpanOf(trace).begin_ns) {
    for (const RankTrace& rank : trace.ranks) {
      for (const Op& op : rank.ops) two_rings_ = two_rings_ || op.level == Level::kOuter;
    }
  }

  std::string Write() {
    Json ranks = Json::array();
    for (const RankTrace& rank : trace_.ranks) {
      Json entry = {{"rank", rank.rank}, {"worker", rank.worker}, {"node", rank.node}};
      if (rank.overlap) entry["overlap"] = *rank.overlap;
      ranks.push_back(std::move(entry));
      AddRank(rank);
    }
    const Json other = {{"schema", kTraceSchema},
                        {"title", trace_.title},
                        {"metadata", trace_.metadata},
                        {"ranks", std::move(ranks)}};
    return absl::StrCat("{\"displayTimeUnit\":\"ms\",\"otherData\":", Text(other),
                        ",\"traceEvents\":[", events_, "\n]}\n");
  }

 private:
  void AddEvent(const std::string& event) {
    absl::StrAppend(&events_, events_.empty() ? "\n" : ",\n", event);
  }

  void AddName(const char* what, int pid, int tid, const std::string& name) {
    AddEvent(Text(
        {{"ph", "M"}, {"name", what}, {"pid", pid}, {"tid", tid}, {"args", {{"name", name}}}}));
  }

  void AddOrder(const char* what, int pid, int tid, int order) {
    AddEvent(Text({{"ph", "M"},
                   {"name", what},
                   {"pid", pid},
                   {"tid", tid},
                   {"args", {{"sort_index", order}}}}));
  }

  void AddRank(const RankTrace& rank) {
    std::string name = absl::StrCat("rank ", rank.rank);
    if (!rank.worker.empty()) absl::StrAppend(&name, "  ", rank.worker);
    if (!rank.node.empty()) absl::StrAppend(&name, " on ", rank.node);
    AddName("process_name", rank.rank, 0, name);
    AddOrder("process_sort_index", rank.rank, 0, rank.rank);
    std::map<Track, std::vector<const Op*>> tracks;
    for (const Op& op : rank.ops) tracks[TrackOf(op)].push_back(&op);
    int tid = 0;
    for (const auto& [track, ops] : tracks) {
      // Viewers take events of a track that overlap for calls within each other: one lane each.
      const std::vector<int> lanes = AssignLanes(ops);
      const int count = 1 + *std::max_element(lanes.begin(), lanes.end());
      for (int lane = 0; lane < count; ++lane) {
        AddName("thread_name", rank.rank, tid + 1 + lane, TrackName(track, lane, two_rings_));
        AddOrder("thread_sort_index", rank.rank, tid + 1 + lane, tid + 1 + lane);
      }
      for (size_t i = 0; i < ops.size(); ++i) AddOp(rank.rank, tid + 1 + lanes[i], *ops[i]);
      tid += count;
    }
  }

  void AddOp(int pid, int tid, const Op& op) {
    Json args = {{"step", op.step}, {"label", op.label}};
    if (!IsCompute(op.kind)) {
      args["level"] = LevelName(op.level);
      args["peer"] = op.peer;
    }
    if (op.bytes > 0) args["bytes"] = op.bytes;
    AddEvent(absl::StrCat("{\"ph\":\"X\",\"pid\":", pid, ",\"tid\":", tid,
                          ",\"ts\":", Microseconds(op.start_ns - begin_ns_),
                          ",\"dur\":", Microseconds(std::max<int64_t>(op.end_ns - op.start_ns, 0)),
                          ",\"cat\":", Text(std::string(OpKindName(op.kind))),
                          ",\"name\":", Text(OpName(op)), ",\"args\":", Text(args), "}"));
  }

  const Trace& trace_;
  const int64_t begin_ns_;
  bool two_rings_ = false;
  std::string events_;
};

}  // namespace

std::string ToChromeTrace(const Trace& trace) { return Writer(trace).Write(); }

absl::Status WriteChromeTrace(const std::string& path, const Trace& trace) {
  return io::WriteFileAtomically(path, ToChromeTrace(trace));
}

}  // namespace annulus::trace
