// SPDX-License-Identifier: Apache-2.0
// annulus trace: a picture or a table of a timeline.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/commands/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/text_output.h"
#include "client/cli/units.h"
#include "client/trace/chrome_trace.h"
#include "client/trace/svg.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

enum class TraceFormat { kText, kSvg };

struct TraceFlags {
  std::string file;
  std::string output;
  TraceFormat format = TraceFormat::kText;
};

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

// Seconds and counts by kind, rank by rank.
std::string ToText(const trace::Trace& trace) {
  const trace::TimeSpan span = trace::SpanOf(trace);
  std::string text = absl::StrFormat("%s\n%d ranks, %s\n", trace.title, trace.ranks.size(),
                                     FormatSeconds(Seconds(span.end_ns - span.begin_ns)));
  absl::StrAppendFormat(&text, "  %4s  %-16s  %10s  %10s  %10s  %10s  %8s\n", "rank", "worker",
                        "compute", "send", "receive", "wait", "overlap");
  for (const trace::RankTrace& rank : trace.ranks) {
    std::map<trace::OpKind, int64_t> ns;
    int64_t compute_ns = 0;
    for (const trace::Op& op : rank.ops) {
      ns[op.kind] += op.end_ns - op.start_ns;
      if (trace::IsCompute(op.kind)) compute_ns += op.end_ns - op.start_ns;
    }
    absl::StrAppendFormat(&text, "  %4d  %-16s  %10s  %10s  %10s  %10s  %8s\n", rank.rank,
                          rank.worker, FormatSeconds(Seconds(compute_ns)),
                          FormatSeconds(Seconds(ns[trace::OpKind::kSend])),
                          FormatSeconds(Seconds(ns[trace::OpKind::kReceive])),
                          FormatSeconds(Seconds(ns[trace::OpKind::kWait])),
                          rank.overlap ? absl::StrFormat("%.1f %%", 100 * *rank.overlap) : "-");
  }
  return text;
}

absl::StatusOr<std::string> Render(const TraceFlags& flags) {
  const auto trace = trace::ReadChromeTrace(flags.file);
  if (!trace.ok()) return UsageError(trace.status());
  return flags.format == TraceFormat::kSvg ? trace::RenderSvg(*trace) : ToText(*trace);
}

}  // namespace

Command AddTraceCommand(CLI::App* app) {
  static const std::map<std::string, TraceFormat>& names = *new std::map<std::string, TraceFormat>{
      {"text", TraceFormat::kText}, {"svg", TraceFormat::kSvg}};
  auto flags = std::make_shared<TraceFlags>();
  app->add_option("FILE", flags->file, "What run --trace wrote")->required();
  app->add_option("--format", flags->format, "text or svg (default text)")
      ->transform(CLI::CheckedTransformer(names));
  app->add_option("--output", flags->output, "File (default: standard output)");
  return [flags] {
    const absl::StatusOr<std::string> text = Render(*flags);
    return text.ok() ? WriteText(flags->output, *text) : Fail(text.status());
  };
}

}  // namespace annulus::cli
