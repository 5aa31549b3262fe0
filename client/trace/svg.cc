// SPDX-License-Identifier: Apache-2.0
#include "client/trace/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/trace/svg_canvas.h"

namespace annulus::trace {
namespace {

// Pixels.
constexpr double kLeft = 150;
constexpr double kPlotWidth = 960;
constexpr double kRight = 90;
constexpr double kTop = 84;
constexpr double kComputeHeight = 20;
constexpr double kHopHeight = 6;
constexpr double kHopGap = 2;
constexpr double kRowGap = 12;
constexpr double kBottom = 44;
constexpr double kTooltipsMax = 5000;  // bars; beyond, tooltips would be most of the file

constexpr std::string_view kGrey = "#57606a";
constexpr std::string_view kFaint = "#d8dee4";

// How a kind of bar looks, and what the legend calls it.
struct Look {
  std::string_view css_class;
  std::string_view fill;
  std::string_view legend;
};
constexpr std::array<Look, 9> kLooks = {{
    {"compute", "#3f72b8", "compute"},
    {"compute", "#6f9bd4", ""},  // every other step
    {"other", "#b3a5d6", "prepare, accumulate, finish"},
    {"wait", "url(#wait)", "standing still"},
    {"inner", "#2da06a", "inner hop: K, V"},
    {"inner", "#8fd19e", "inner hop: dK, dV"},
    {"outer", "#e07b16", "outer hop: K, V"},
    {"outer", "#f5bd78", "outer hop: dK, dV"},
    {"copy", "#c4b45a", "copies to and from the device"},
}};
enum LookIndex : size_t {
  kEven,
  kOdd,
  kOther,
  kWait,
  kInnerKv,
  kInnerDkv,
  kOuterKv,
  kOuterDkv,
  kCopied
};

LookIndex LookOf(const Op& op) {
  switch (op.kind) {
    case OpKind::kCompute:
      return op.step % 2 == 0 ? kEven : kOdd;
    case OpKind::kWait:
      return kWait;
    case OpKind::kCopy:
      return kCopied;
    case OpKind::kReceive:
    case OpKind::kSend: {
      const bool gradient = op.label == "dkv";
      if (op.level == Level::kOuter) return gradient ? kOuterDkv : kOuterKv;
      return gradient ? kInnerDkv : kInnerKv;
    }
    default:
      return kOther;
  }
}

std::string Duration(int64_t ns) {
  const auto value = static_cast<double>(ns);
  if (ns >= 1'000'000'000) return absl::StrFormat("%.3g s", value * 1e-9);
  if (ns >= 1'000'000) return absl::StrFormat("%.3g ms", value * 1e-6);
  if (ns >= 1'000) return absl::StrFormat("%.3g us", value * 1e-3);
  return absl::StrFormat("%d ns", ns);
}

std::string Size(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= 1'000'000'000) return absl::StrFormat("%.3g GB", value * 1e-9);
  if (bytes >= 1'000'000) return absl::StrFormat("%.3g MB", value * 1e-6);
  if (bytes >= 1'000) return absl::StrFormat("%.3g kB", value * 1e-3);
  return absl::StrFormat("%d B", bytes);
}

std::string Tooltip(const Op& op) {
  std::string text = absl::StrCat("step ", op.step, ": ", std::string(OpKindName(op.kind)));
  if (op.kind == OpKind::kReceive) {
    absl::StrAppend(&text, " ", op.label, " from rank ", op.peer, ", ",
                    std::string(LevelName(op.level)), ", ", Size(op.bytes));
  }
  if (op.kind == OpKind::kWait) absl::StrAppend(&text, " for rank ", op.peer);
  return absl::StrCat(text, ", ", Duration(op.end_ns - op.start_ns));
}

std::string Shortened(const std::string& text, size_t limit) {
  return text.size() <= limit ? text : text.substr(0, limit - 2) + "..";
}

// 1, 2 or 5 times a power of ten, such that there are five to twelve ticks.
int64_t TickStep(int64_t span_ns) {
  int64_t power = 1;
  while (span_ns / (10 * power) >= 5) power *= 10;
  for (int64_t step : {5 * power, 2 * power}) {
    if (span_ns / step >= 5) return step;
  }
  return power;
}

// The hops that a rank received over one ring, by lane.
std::vector<std::vector<const Op*>> LanesOf(const RankTrace& rank, Level level) {
  std::vector<const Op*> ops;
  for (const Op& op : rank.ops) {
    if (op.kind == OpKind::kReceive && op.level == level) ops.push_back(&op);
  }
  std::vector<std::vector<const Op*>> result;
  const std::vector<int> lanes = AssignLanes(ops);
  for (size_t i = 0; i < ops.size(); ++i) {
    const auto lane = static_cast<size_t>(lanes[i]);
    if (lane >= result.size()) result.resize(lane + 1);
    result[lane].push_back(ops[i]);
  }
  return result;
}

class Picture {
 public:
  explicit Picture(const Trace& trace) : trace_(trace), span_(SpanOf(trace)) {
    size_t bars = 0;
    for (const RankTrace& rank : trace.ranks) {
      bars += rank.ops.size();
      inner_lanes_ = std::max(inner_lanes_, LanesOf(rank, Level::kInner).size());
      outer_lanes_ = std::max(outer_lanes_, LanesOf(rank, Level::kOuter).size());
    }
    tooltips_ = static_cast<double>(bars) <= kTooltipsMax;
  }

  std::string Draw() {
    DrawHeading();
    DrawAxis();
    for (size_t i = 0; i < trace_.ranks.size(); ++i) DrawRank(i);
    return canvas_.Finish(kLeft + kPlotWidth + kRight, Bottom() + kBottom, trace_.title);
  }

 private:
  // A bar not yet drawn, which the next may join.
  struct Bar {
    double begin, end;
    LookIndex look;
    const Op* op;  // null once several are joined
  };

  double X(int64_t ns) const {
    const auto span = static_cast<double>(std::max<int64_t>(span_.end_ns - span_.begin_ns, 1));
    return kLeft + kPlotWidth * static_cast<double>(ns - span_.begin_ns) / span;
  }
  double RowHeight() const {
    return kComputeHeight +
           static_cast<double>(inner_lanes_ + outer_lanes_) * (kHopHeight + kHopGap) + kRowGap;
  }
  double RowTop(size_t row) const { return kTop + static_cast<double>(row) * RowHeight(); }
  double Bottom() const { return RowTop(trace_.ranks.size()); }

  void DrawHeading() {
    canvas_.AddText(16, 28, trace_.title, {.size = 17, .bold = true});
    canvas_.AddText(kLeft + kPlotWidth + kRight - 16, kTop - 8, "overlap",
                    {.size = 11, .anchor = "end", .color = kGrey});
    std::array<bool, kLooks.size()> used = {};
    for (const RankTrace& rank : trace_.ranks) {
      for (const Op& op : rank.ops) {
        if (op.kind != OpKind::kSend) used[LookOf(op)] = true;
      }
    }
    used[kEven] = used[kEven] || used[kOdd];
    double x = 16;
    for (size_t i = 0; i < kLooks.size(); ++i) {
      if (!used[i] || kLooks[i].legend.empty()) continue;
      canvas_.AddBox({x, 43, 14, 10}, kLooks[i].fill, "legend");
      canvas_.AddText(x + 20, 52, kLooks[i].legend, {.size = 12, .color = kGrey});
      x += 20 + 6.4 * static_cast<double>(kLooks[i].legend.size()) + 22;
    }
  }

  void DrawAxis() {
    const int64_t span = span_.end_ns - span_.begin_ns;
    if (span <= 0) return;
    const int64_t step = TickStep(span);
    for (int64_t tick = 0; tick <= span; tick += step) {
      const double x = X(span_.begin_ns + tick);
      canvas_.AddLine(x, kTop - 4, x, Bottom() + 2, kFaint);
      canvas_.AddText(x, Bottom() + 18, tick == 0 ? "0" : Duration(tick),
                      {.size = 11, .anchor = "middle", .color = kGrey});
    }
  }

  void DrawRank(size_t row) {
    const RankTrace& rank = trace_.ranks[row];
    const double top = RowTop(row);
    canvas_.AddText(16, top + 14, absl::StrCat("rank ", rank.rank), {.size = 13, .bold = true});
    std::string where = rank.worker;
    if (!rank.node.empty()) absl::StrAppend(&where, where.empty() ? "" : ", ", rank.node);
    canvas_.AddText(16, top + 27, Shortened(where, 24), {.size = 10, .color = kGrey});
    DrawCompute(rank, top);
    // The outer ring's lanes stand beneath the inner's at the same depth in every row.
    const double hops = top + kComputeHeight + kHopGap;
    DrawLanes(LanesOf(rank, Level::kInner), hops);
    DrawLanes(LanesOf(rank, Level::kOuter),
              hops + static_cast<double>(inner_lanes_) * (kHopHeight + kHopGap));
    if (rank.overlap) {
      canvas_.AddText(kLeft + kPlotWidth + kRight - 16, top + 15,
                      absl::StrFormat("%.1f %%", 100 * *rank.overlap),
                      {.size = 13, .anchor = "end", .bold = true});
    }
  }

  void DrawLanes(std::vector<std::vector<const Op*>> lanes, double y) {
    for (std::vector<const Op*>& lane : lanes) {
      DrawBars(lane, y, kHopHeight);
      y += kHopHeight + kHopGap;
    }
  }

  void DrawCompute(const RankTrace& rank, double top) {
    std::vector<const Op*> waits;
    std::vector<const Op*> computes;
    for (const Op& op : rank.ops) {
      if (op.kind == OpKind::kWait) waits.push_back(&op);
      if (IsCompute(op.kind) || op.kind == OpKind::kCopy) computes.push_back(&op);
    }
    canvas_.AddBox({kLeft, top, kPlotWidth, kComputeHeight}, "#f6f8fa", "row");
    DrawBars(waits, top, kComputeHeight);
    DrawBars(computes, top, kComputeHeight);
    DrawStepNumbers(computes, top);
  }

  // The number of each step in its first bar that has room for it.
  void DrawStepNumbers(const std::vector<const Op*>& computes, double top) {
    int labelled = -1;
    for (const Op* op : computes) {
      if (op->kind != OpKind::kCompute || op->step == labelled) continue;
      const std::string number = absl::StrCat(op->step);
      const double width = X(op->end_ns) - X(op->start_ns);
      if (width < 4 + 7 * static_cast<double>(number.size())) continue;
      labelled = op->step;
      canvas_.AddText(X(op->start_ns) + width / 2, top + 14, number,
                      {.size = 11, .anchor = "middle", .color = "#ffffff"});
    }
  }

  void DrawBars(std::vector<const Op*>& ops, double y, double height) {
    std::stable_sort(ops.begin(), ops.end(),
                     [](const Op* a, const Op* b) { return a->start_ns < b->start_ns; });
    std::optional<Bar> open;
    for (const Op* op : ops) {
      const Bar bar = {X(op->start_ns), X(std::max(op->start_ns, op->end_ns)), LookOf(*op), op};
      const bool joins = open && open->look == bar.look && bar.begin - open->end < 0.5 &&
                         open->end - open->begin < 1 && bar.end - bar.begin < 1;
      if (joins) {
        open->end = std::max(open->end, bar.end);
        open->op = nullptr;
      } else {
        if (open) DrawBar(*open, y, height);
        open = bar;
      }
    }
    if (open) DrawBar(*open, y, height);
  }

  void DrawBar(const Bar& bar, double y, double height) {
    const Look& look = kLooks[bar.look];
    // A hair between neighbours, so that one bar after the other is not one long bar.
    const double width = bar.end - bar.begin - (bar.end - bar.begin > 3 ? 0.6 : 0);
    canvas_.AddBox({bar.begin, y, std::max(width, 0.3), height}, look.fill, look.css_class,
                   tooltips_ && bar.op != nullptr ? Tooltip(*bar.op) : "");
  }

  const Trace& trace_;
  const TimeSpan span_;
  size_t inner_lanes_ = 0;  // the most of any rank
  size_t outer_lanes_ = 0;
  bool tooltips_ = true;
  SvgCanvas canvas_;
};

}  // namespace

std::string RenderSvg(const Trace& trace) { return Picture(trace).Draw(); }

}  // namespace annulus::trace
