// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "client/cli/bench/kernel_report.h"
#include "client/cli/bench/ring_bench.h"
#include "client/cli/report.h"
#include "client/cli/units.h"
#include "server/ring/names.h"

namespace annulus::cli::bench {
namespace {

using Json = nlohmann::ordered_json;

Json PhaseJson(const RingPhase& phase) {
  const bool has_ceiling = phase.share > 0;
  return {{"flops", phase.flops},
          {"wall_seconds", SpreadJson(phase.wall_seconds)},
          {"flops_per_second", SpreadJson(phase.rate)},
          {"share", has_ceiling ? Json(phase.share) : Json()},
          {"window_share", has_ceiling ? SpreadJson(phase.window_share) : Json()},
          {"overlap_ratio", phase.overlap_ratio},
          {"exposed_comm_seconds", phase.exposed_comm_seconds},
          {"kernel_seconds", SpreadJson(phase.kernel_seconds)},
          {"ring_efficiency", SpreadJson(phase.efficiency)}};
}

std::string SecondsText(const Spread& seconds) {
  return absl::StrFormat("%s (%s to %s)", FormatSeconds(seconds.median), FormatSeconds(seconds.min),
                         FormatSeconds(seconds.max));
}

std::string PhaseText(const RingPhase& phase) {
  std::string text = absl::StrFormat("\n%s\n", std::string(ring::Name(phase.direction)));
  const auto add = [&text](const char* name, const std::string& value) {
    absl::StrAppendFormat(&text, "  %-22s %s\n", name, value);
  };
  add("wall", SecondsText(phase.wall_seconds));
  add("rate", absl::StrFormat("%.1f GFLOP/s, median %.1f", phase.rate.max * 1e-9,
                              phase.rate.median * 1e-9));
  if (phase.share > 0) {
    add("share of multiply-adds", absl::StrFormat("%.1f %%; beside them %s", 100 * phase.share,
                                                  ShareText(phase.window_share)));
  }
  add("overlap", absl::StrFormat("%.1f %%, exposed %s a rank", 100 * phase.overlap_ratio,
                                 FormatSeconds(phase.exposed_comm_seconds)));
  add("kernel, in one piece", SecondsText(phase.kernel_seconds));
  add("ring efficiency", ShareText(phase.efficiency));
  return text;
}

}  // namespace

std::string RingJson(const RunFlags& flags, int worker_threads, const Problem& problem,
                     const RingBenchResult& result) {
  Json json{{"schema", "annulus.bench.ring.v1"},
            {"repeat", flags.repeat},
            {"seed", SeedOf(flags)},
            {"shape", ShapeJson(flags, problem)},
            {"worker_threads", worker_threads},
            {"emulate_link", flags.emulate_link},
            {"device", CeilingJson(result.ceiling)},
            {"devices", result.devices},
            {"client_memory", MemoryJson(result.memory)}};
  for (const RingPhase& phase : result.phases) {
    json[std::string(ring::Name(phase.direction))] = PhaseJson(phase);
  }
  return json.dump(2) + "\n";
}

std::string RingText(const RunFlags& flags, int worker_threads, const Problem& problem,
                     const RingBenchResult& result) {
  std::string text = HeaderText(flags, problem);
  text += MemoryText(result.memory);
  absl::StrAppendFormat(
      &text, "%d workers x %d compute threads, %d repetitions; median (min to max) unless said\n%s",
      flags.shape.context_parallel_size, worker_threads, flags.repeat, result.ceiling.description);
  text += result.ceiling.multiply_add > 0
              ? absl::StrFormat(": multiply-adds %.1f GFLOP/s at best\n",
                                result.ceiling.multiply_add * 1e-9)
              : ", which has no multiply-adds to measure itself by\n";
  for (const RingPhase& phase : result.phases) text += PhaseText(phase);
  text +=
      "\nring efficiency: the time of the same attention in one piece, on as many threads as all "
      "workers have,\nof the wall time of the ring beside it; where they compute on several "
      "devices, on one of them and\ndivided by their number.\n";
  return text;
}

}  // namespace annulus::cli::bench
