// SPDX-License-Identifier: Apache-2.0
#include "client/trace/trace.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

namespace annulus::trace {
namespace {

constexpr std::array<std::string_view, 8> kKinds = {"compute",    "send",    "receive", "wait",
                                                    "accumulate", "prepare", "finish",  "copy"};
constexpr std::array<std::string_view, 2> kLevels = {"inner", "outer"};

template <typename Enum, size_t n>
std::optional<Enum> Parse(const std::array<std::string_view, n>& names, std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return static_cast<Enum>(found - names.begin());
}

}  // namespace

std::string_view OpKindName(OpKind kind) { return kKinds[static_cast<size_t>(kind)]; }
std::optional<OpKind> ParseOpKind(std::string_view name) { return Parse<OpKind>(kKinds, name); }
std::string_view LevelName(Level level) { return kLevels[static_cast<size_t>(level)]; }
std::optional<Level> ParseLevel(std::string_view name) { return Parse<Level>(kLevels, name); }

bool IsTransfer(OpKind kind) { return kind == OpKind::kSend || kind == OpKind::kReceive; }
bool IsCompute(OpKind kind) {
  return !IsTransfer(kind) && kind != OpKind::kWait && kind != OpKind::kCopy;
}

TimeSpan SpanOf(const Trace& trace) {
  TimeSpan span = {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  for (const RankTrace& rank : trace.ranks) {
    for (const Op& op : rank.ops) {
      span.begin_ns = std::min(span.begin_ns, op.start_ns);
      span.end_ns = std::max(span.end_ns, op.end_ns);
    }
  }
  return span.begin_ns > span.end_ns ? TimeSpan() : span;
}

std::vector<int> AssignLanes(const std::vector<const Op*>& ops) {
  std::vector<size_t> order(ops.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&ops](size_t a, size_t b) { return ops[a]->start_ns < ops[b]->start_ns; });
  std::vector<int> lanes(ops.size());
  using EndAndLane = std::pair<int64_t, int>;
  std::priority_queue<EndAndLane, std::vector<EndAndLane>, std::greater<>> busy;
  std::priority_queue<int, std::vector<int>, std::greater<>> idle;
  int count = 0;
  for (size_t i : order) {
    while (!busy.empty() && busy.top().first <= ops[i]->start_ns) {
      idle.push(busy.top().second);
      busy.pop();
    }
    if (idle.empty()) idle.push(count++);
    lanes[i] = idle.top();
    idle.pop();
    busy.push({ops[i]->end_ns, lanes[i]});
  }
  return lanes;
}

}  // namespace annulus::trace
