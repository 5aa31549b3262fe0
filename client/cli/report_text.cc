// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/report.h"
#include "client/cli/units.h"

namespace annulus::cli {
namespace {

struct StepRow {
  double compute_seconds = 0;
  double comm_seconds = 0;
  double exposed_mean_seconds = 0;
  double exposed_max_seconds = 0;
};

std::map<int, StepRow> StepRows(const client::AttendReport& report) {
  std::map<int, StepRow> rows;
  const double n = std::max<double>(1, static_cast<double>(report.ranks.size()));
  for (const client::RankReport& rank : report.ranks) {
    for (const client::StepTiming& step : rank.steps) {
      StepRow& row = rows[step.step];
      row.compute_seconds += step.compute_seconds / n;
      row.comm_seconds += step.comm_seconds / n;
      row.exposed_mean_seconds += step.exposed_seconds / n;
      row.exposed_max_seconds = std::max(row.exposed_max_seconds, step.exposed_seconds);
    }
  }
  return rows;
}

std::string CallText(const char* name, const client::AttendReport& report) {
  std::string text = absl::StrFormat("\n%s: plan %s, epoch %d\n", name,
                                     report.plan_digest.substr(0, 12), report.epoch);
  absl::StrAppendFormat(&text, "  %4s  %10s  %10s  %10s  %12s\n", "step", "compute", "transfer",
                        "exposed", "exposed max");
  for (const auto& [step, row] : StepRows(report)) {
    absl::StrAppendFormat(&text, "  %4d  %10s  %10s  %10s  %12s\n", step,
                          FormatSeconds(row.compute_seconds), FormatSeconds(row.comm_seconds),
                          FormatSeconds(row.exposed_mean_seconds),
                          FormatSeconds(row.exposed_max_seconds));
  }
  const client::Timing total = report.Total();
  absl::StrAppendFormat(&text, "  %4s  %10s  %10s  %10s\n", "all",
                        FormatSeconds(total.compute_seconds), FormatSeconds(total.comm_seconds),
                        FormatSeconds(total.exposed_comm_seconds));
  absl::StrAppendFormat(
      &text,
      "  overlap %.1f %%, moved %s inner and %s outer, late peers %s, peak %s a "
      "worker, wall %s\n",
      100 * total.overlap_ratio(), FormatBytes(static_cast<double>(total.bytes_inner)),
      FormatBytes(static_cast<double>(total.bytes_outer)), FormatSeconds(total.peer_wait_seconds),
      FormatBytes(static_cast<double>(total.peak_bytes)), FormatSeconds(report.wall_seconds));
  return text;
}

std::string VerificationText(const Verification& verified) {
  std::string text =
      absl::StrFormat("\nverified against float64 in %s%s\n", FormatSeconds(verified.seconds),
                      verified.sampled ? " (sampled rows)" : "");
  for (const Check& check : verified.checks) {
    absl::StrAppendFormat(&text, "  %-4s %-14s %9.2e  gate %8.1e  %-6s  %d of %d rows\n",
                          check.name, check.measure, check.error, check.gate,
                          check.passed() ? "ok" : "BEYOND", check.rows, check.rows_total);
  }
  return text;
}

}  // namespace

std::string HeaderText(const RunFlags& flags, const Problem& problem) {
  const int size = flags.shape.context_parallel_size;
  const int window = flags.shape.cp_window_size == 0 ? size : flags.shape.cp_window_size;
  std::string text = absl::StrFormat("attention [%d, %d, %d, %d]", problem.batch,
                                     problem.query_length, problem.query_heads, problem.head_dim);
  if (problem.kv_length != problem.query_length || problem.kv_heads != problem.query_heads) {
    absl::StrAppendFormat(&text, " over K, V [%d, %d, %d, %d]", problem.batch, problem.kv_length,
                          problem.kv_heads, problem.head_dim);
  }
  absl::StrAppendFormat(&text, " %s, %s mask", DataTypeName(problem.dtype), flags.shape.mask);
  if (flags.shape.window_left >= 0) {
    absl::StrAppendFormat(&text, " with a window of %d", flags.shape.window_left);
  }
  absl::StrAppendFormat(&text, "%s\n", flags.backward ? ", forward and backward" : "");
  const bool ring = window == size || window == 1;
  absl::StrAppendFormat(
      &text, "%s of %d ranks%s, %s layout, transfers %s, %s\n", ring ? "ring" : "double ring", size,
      ring ? "" : absl::StrFormat(" in windows of %d", window), flags.shape.layout,
      flags.transfers_off ? "off (results are wrong by intent)"
      : flags.overlap     ? "beside compute"
                          : "between computes",
      flags.coordinator.empty() ? "workers of its own"
                                : absl::StrCat("coordinator ", flags.coordinator));
  return text;
}

std::string MemoryText(const MemoryUsed& memory) {
  if (!memory.devices.empty()) {
    return absl::StrCat("tensors in device memory, used in place: ", memory.devices, "\n");
  }
  return memory.reason.empty()
             ? ""
             : absl::StrCat("tensors in the host's memory: ", memory.reason, "\n");
}

std::string ReportText(const RunFlags& flags, const RunResult& result) {
  std::string text = MemoryText(result.memory) + CallText("forward", result.best.forward);
  if (result.best.backward) text += CallText("backward", *result.best.backward);
  if (result.wall_seconds.size() > 1) {
    absl::StrAppendFormat(
        &text, "\nfastest of %d runs; wall %s to %s\n", result.wall_seconds.size(),
        FormatSeconds(*std::min_element(result.wall_seconds.begin(), result.wall_seconds.end())),
        FormatSeconds(*std::max_element(result.wall_seconds.begin(), result.wall_seconds.end())));
  }
  if (result.verification) {
    text += VerificationText(*result.verification);
  } else if (flags.transfers_off) {
    text += "\nnot verified: transfers were off, so the results are wrong by intent\n";
  }
  absl::StrAppendFormat(&text, "\nwall %s%s\n", FormatSeconds(result.best.wall_seconds()),
                        flags.output.empty() ? "" : absl::StrCat(", written to ", flags.output));
  return text;
}

}  // namespace annulus::cli
