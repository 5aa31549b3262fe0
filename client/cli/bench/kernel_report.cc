// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench/kernel_report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/flags.h"
#include "client/cli/units.h"
#include "server/ring/names.h"

namespace annulus::cli::bench {
namespace {

using Json = nlohmann::ordered_json;

Json CaseJson(const KernelResult& result) {
  const Problem& p = result.shape.problem;
  return {{"seq_length", p.query_length},
          {"kv_seq_length", p.kv_length},
          {"batch_size", p.batch},
          {"num_heads", p.query_heads},
          {"num_kv_heads", p.kv_heads},
          {"head_dim", p.head_dim},
          {"dtype", DataTypeName(p.dtype)},
          {"mask", std::string(ring::Name(result.shape.mask.kind))},
          {"direction", std::string(ring::Name(result.direction))},
          {"threads", result.threads},
          {"flops", result.flops},
          {"kv_bytes", result.kv_bytes},
          {"flops_per_second", SpreadJson(result.rate)},
          {"share", result.share},
          {"window_share", SpreadJson(result.window_share)},
          {"limit", result.limit}};
}

std::string CaseText(const KernelResult& result) {
  const Problem& p = result.shape.problem;
  const std::string tokens = p.query_length == p.kv_length
                                 ? absl::StrCat(p.query_length)
                                 : absl::StrCat(p.query_length, " x ", p.kv_length);
  return absl::StrFormat(
      "%7d  %-5s %4d  %14s  %7s  %-6s  %-8s  %8.1f  %8.1f  %5.1f %%  %-25s  %5.1f %%\n",
      result.threads, DataTypeName(p.dtype), p.head_dim, tokens,
      absl::StrCat(p.query_heads, ":", p.kv_heads), std::string(ring::Name(result.shape.mask.kind)),
      std::string(ring::Name(result.direction)), result.rate.max * 1e-9, result.rate.median * 1e-9,
      100 * result.share, ShareText(result.window_share), 100 * result.limit);
}

// Null where the device has no such ceiling.
Json Rate(double rate) { return rate > 0 ? Json(rate) : Json(); }

}  // namespace

std::string ShareText(const Spread& share) {
  return absl::StrFormat("%.1f %% (%.1f to %.1f)", 100 * share.median, 100 * share.min,
                         100 * share.max);
}

Json SpreadJson(const Spread& spread) {
  return {{"min", spread.min}, {"median", spread.median}, {"max", spread.max}};
}

Json CeilingJson(const CeilingRates& ceiling) {
  return {{"threads", ceiling.threads},
          {"description", ceiling.description},
          {"multiply_add_flops_per_second", Rate(ceiling.multiply_add)},
          {"memory_read_bytes_per_second", Rate(ceiling.memory_read)}};
}

std::string KernelJson(const KernelBenchOptions& options, const KernelBenchResult& result) {
  Json json{{"schema", "annulus.bench.kernels.v1"},
            {"rounds", options.rounds},
            {"min_seconds", options.min_seconds},
            {"seed", options.seed},
            {"devices", Json::array()},
            {"cases", Json::array()}};
  for (const CeilingRates& ceiling : result.ceilings) {
    json["devices"].push_back(CeilingJson(ceiling));
  }
  for (const KernelResult& one : result.cases) json["cases"].push_back(CaseJson(one));
  return json.dump(2) + "\n";
}

std::string KernelText(const KernelBenchOptions& options, const KernelBenchResult& result) {
  std::string text;
  for (const CeilingRates& ceiling : result.ceilings) {
    absl::StrAppendFormat(&text, "%s: multiply-adds %.1f GFLOP/s, memory %.1f GB/s at best\n",
                          ceiling.description, ceiling.multiply_add * 1e-9,
                          ceiling.memory_read * 1e-9);
  }
  absl::StrAppendFormat(&text, "batch %d, %d rounds, windows of %s\n\n",
                        options.shapes.front().problem.batch, options.rounds,
                        options.min_seconds > 0
                            ? absl::StrCat("at least ", FormatSeconds(options.min_seconds))
                            : "one call");
  absl::StrAppendFormat(&text, "%7s  %-5s %4s  %14s  %7s  %-6s  %-8s  %8s  %8s  %7s  %-25s  %7s\n",
                        "threads", "dtype", "D", "tokens", "heads", "mask", "", "GFLOP/s", "median",
                        "share", "beside it (min to max)", "limit");
  for (const KernelResult& one : result.cases) text += CaseText(one);
  text +=
      "\nshare: the best window of the best multiply-add loop of the run; beside it: each window "
      "of the loops\nright before and after it; limit: what reading K and V once from memory "
      "leaves. FLOPs: 4 for each unmasked\npair, head and element of the head, 2.5 times that "
      "backward.\n";
  return text;
}

}  // namespace annulus::cli::bench
