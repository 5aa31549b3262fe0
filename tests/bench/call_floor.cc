// SPDX-License-Identifier: Apache-2.0
// annulus-call-floor: what a call costs beside its compute, with the client's tensors used in
// place: in the host's memory, or on the devices of the workers (--device cuda).
//   1. p50 of a tiny call (N = 2, S = 16, one head of 64).
//   2. the share of wall time not spent in compute at S = 8192 per worker (N = 2,
//   --long-seq-length).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/embedded_cluster.h"
#include "client/cli/exit_code.h"
#include "client/cli/flags.h"
#include "client/cli/interrupt.h"
#include "client/cli/ring_job.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

struct Series {
  std::vector<double> wall_seconds;  // sorted
  double compute_share = 0;          // of the last call: mean over ranks of compute / wall
  MemoryUsed memory;
  int64_t length = 0;
};

// So many calls of an attention over `length` tokens, after one that does not count: it makes the
// plan and leases the memory.
absl::StatusOr<Series> TimeCalls(RunFlags flags, int64_t length, int heads, int calls) {
  flags.shape.context_parallel_size = 2;
  flags.shape.seq_length = length;
  flags.num_heads = heads;
  ANNULUS_ASSIGN_OR_RETURN(RingJob job, ResolveRingJob(flags));
  Series series;
  const auto work = [&](client::Client* client, const std::string& coordinator) -> absl::Status {
    ANNULUS_ASSIGN_OR_RETURN(RingAttention attention,
                             RingAttention::Create(client, coordinator, flags, job));
    series.length = length;
    series.memory = attention.memory().Used();
    ANNULUS_RETURN_IF_ERROR(attention.Run("warming up").status());
    for (int i = 0; i < calls; ++i) {
      ANNULUS_ASSIGN_OR_RETURN(const Repetition call, attention.Run("calls"));
      series.wall_seconds.push_back(call.wall_seconds());
      series.compute_share = call.forward.Total().compute_seconds / call.wall_seconds();
    }
    return absl::OkStatus();
  };
  ANNULUS_RETURN_IF_ERROR(WithRing("call floor", flags, &job, work));
  std::sort(series.wall_seconds.begin(), series.wall_seconds.end());
  return series;
}

void PrintText(const Series& tiny, const Series& large) {
  const std::vector<double>& wall = tiny.wall_seconds;
  std::printf("tensors in %s\n",
              tiny.memory.devices.empty() ? "the host's memory" : tiny.memory.devices.c_str());
  if (!tiny.memory.reason.empty()) std::printf("because: %s\n", tiny.memory.reason.c_str());
  std::printf("tiny call (N = 2, S = 16): p50 %.0f us, p99 %.0f us, min %.0f us over %zu calls\n",
              1e6 * wall[wall.size() / 2], 1e6 * wall[wall.size() * 99 / 100], 1e6 * wall.front(),
              wall.size());
  std::printf("long call (N = 2, S = %lld): wall %.3f s, %.2f %% of it not in compute\n",
              static_cast<long long>(large.length), large.wall_seconds.front(),
              100 * (1 - large.compute_share));
}

void PrintJson(const Series& tiny, const Series& large) {
  const std::vector<double>& wall = tiny.wall_seconds;
  const char* place = tiny.memory.devices.empty() ? "host" : "device";
  std::printf(
      "{\"what\": \"tiny call\", \"client_memory\": \"%s\", \"calls\": %zu, \"p50_seconds\": "
      "%.9f, \"p99_seconds\": %.9f, \"min_seconds\": %.9f}\n",
      place, wall.size(), wall[wall.size() / 2], wall[wall.size() * 99 / 100], wall.front());
  std::printf(
      "{\"what\": \"long call\", \"client_memory\": \"%s\", \"length\": %lld, \"wall_seconds\": "
      "%.6f, \"not_compute_share\": %.6f}\n",
      place, static_cast<long long>(large.length), large.wall_seconds.front(),
      1 - large.compute_share);
}

struct FloorFlags {
  RunFlags run;
  int calls = 2000;
  int64_t long_length = 16384;
};

absl::Status Measure(FloorFlags flags) {
  std::unique_ptr<EmbeddedCluster> own;
  if (flags.run.coordinator.empty()) {
    EmbeddedClusterOptions options;
    options.workers = 2;
    options.compute_plugin = ComputePluginOf(flags.run);
    options.program_folder = ANNULUS_PROGRAM_FOLDER;
    ANNULUS_ASSIGN_OR_RETURN(own, EmbeddedCluster::Start(options));
    flags.run.coordinator = own->coordinator().listen;
    flags.run.compute_plugin = options.compute_plugin;
    flags.run.device = "";
  }
  ANNULUS_ASSIGN_OR_RETURN(const Series tiny, TimeCalls(flags.run, 16, 1, flags.calls));
  ANNULUS_ASSIGN_OR_RETURN(const Series large, TimeCalls(flags.run, flags.long_length, 2, 5));
  (flags.run.format == Format::kJson ? PrintJson : PrintText)(tiny, large);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  InstallInterrupts();
  FloorFlags flags;
  CLI::App app("What a call costs beside its compute.");
  app.add_option("coordinator,--coordinator", flags.run.coordinator,
                 "HOST:PORT of a cluster with two workers; without it, one is started");
  AddComputeFlags(&app, &flags.run);
  AddFormatFlag(&app, &flags.run.format);
  app.add_option("--dtype", flags.run.dtype, "f32, bf16 or f16 (default f32)");
  app.add_option("--calls", flags.calls, "Tiny calls (default 2000)")
      ->check(CLI::Range(1, 1000000));
  app.add_option("--long-seq-length", flags.long_length, "Of the long calls (default 16384)")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 30));
  CLI11_PARSE(app, argc, argv);
  const absl::Status measured = Measure(flags);
  return measured.ok() ? kDone : Fail(measured);
}

}  // namespace
}  // namespace annulus::cli

int main(int argc, char** argv) { return annulus::cli::Main(argc, argv); }
