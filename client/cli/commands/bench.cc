// SPDX-License-Identifier: Apache-2.0
// annulus bench kernels, annulus bench ring: speed, as a share of what the processor can do.
#include <CLI/CLI.hpp>
#include <memory>

#include "client/cli/bench/kernel_bench.h"
#include "client/cli/bench/kernel_flags.h"
#include "client/cli/bench/kernel_report.h"
#include "client/cli/bench/ring_bench.h"
#include "client/cli/commands/commands.h"
#include "client/cli/device_memory/compute_device.h"
#include "client/cli/embedded_cluster.h"
#include "client/cli/exit_code.h"
#include "client/cli/text_output.h"
#include "client/io/atomic_file.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

struct RingBenchFlags {
  RunFlags run;
  std::string output;
};

absl::Status CheckOutput(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  const absl::Status writable = io::CheckWritable(path);
  return writable.ok() ? writable : UsageErrorIn("--output", writable);
}

absl::StatusOr<std::string> BenchKernels(const bench::KernelFlags& flags) {
  ANNULUS_ASSIGN_OR_RETURN(const bench::KernelBenchOptions options,
                           bench::KernelOptionsFromFlags(flags));
  ANNULUS_RETURN_IF_ERROR(CheckOutput(flags.output));
  ANNULUS_ASSIGN_OR_RETURN(const annulusComputeV1* api, LoadComputePlugin(flags.compute_plugin));
  ANNULUS_ASSIGN_OR_RETURN(const bench::KernelBenchResult result,
                           bench::RunKernelBench(api, options));
  return flags.format == Format::kJson ? bench::KernelJson(options, result)
                                       : bench::KernelText(options, result);
}

absl::StatusOr<std::string> BenchRing(const RingBenchFlags& flags) {
  RunFlags run = flags.run;
  int worker_threads = run.threads;
  if (run.coordinator.empty()) {
    if (worker_threads == 0) worker_threads = DefaultThreads(run.shape.context_parallel_size);
  } else if (worker_threads == 0) {
    return UsageError(
        "--threads: expected the compute threads of each worker, which the cluster of "
        "--coordinator does not tell");
  } else {
    run.threads = 0;  // said, not asked for
  }
  ANNULUS_ASSIGN_OR_RETURN(RingJob job, ResolveRingJob(run));
  ANNULUS_RETURN_IF_ERROR(CheckOutput(flags.output));
  ANNULUS_ASSIGN_OR_RETURN(const annulusComputeV1* api, LoadComputePlugin(ComputePluginOf(run)));
  ANNULUS_ASSIGN_OR_RETURN(const bench::RingBenchResult result,
                           bench::RunRingBench(api, run, worker_threads, &job));
  return run.format == Format::kJson ? bench::RingJson(run, worker_threads, job.problem, result)
                                     : bench::RingText(run, worker_threads, job.problem, result);
}

Command AddKernels(CLI::App* app) {
  auto flags = std::make_shared<bench::KernelFlags>();
  bench::AddKernelFlags(app, flags.get());
  app->footer("Lists are measured in every combination. Cases take turns in each round.");
  return [flags] {
    const absl::StatusOr<std::string> text = BenchKernels(*flags);
    return text.ok() ? WriteText(flags->output, *text) : Fail(text.status());
  };
}

Command AddRing(CLI::App* app) {
  auto flags = std::make_shared<RingBenchFlags>();
  flags->run.repeat = 5;
  AddRingFlags(app, &flags->run);
  app->add_option("--repeat", flags->run.repeat, "Runs so often (default 5)")
      ->check(CLI::Range(1, 1000000));
  app->add_option("--output", flags->output, "File (default: standard output)");
  AddFormatFlag(app, &flags->run.format);
  app->footer(
      "The yardsticks are measured by this process while the workers stand still: with "
      "--coordinator the workers should run on machines like this one, and --threads says how many "
      "compute threads each has.");
  return [flags] {
    const absl::StatusOr<std::string> text = BenchRing(*flags);
    return text.ok() ? WriteText(flags->output, *text) : Fail(text.status());
  };
}

}  // namespace

Command AddBenchCommand(CLI::App* app) {
  app->require_subcommand(1);
  CLI::App* kernels = app->add_subcommand(
      "kernels", "Attention kernels of a compute plugin beside its multiply-add and memory limits");
  CLI::App* ring = app->add_subcommand(
      "ring", "A ring beside the limits of its cores and the same attention in one piece");
  return [kernels, run_kernels = AddKernels(kernels), run_ring = AddRing(ring)] {
    return kernels->parsed() ? run_kernels() : run_ring();
  };
}

}  // namespace annulus::cli
