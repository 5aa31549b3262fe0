// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench/ring_bench.h"

#include <memory>

#include "absl/strings/str_format.h"
#include "client/cli/bench/attention_work.h"
#include "client/cli/bench/kernel_case.h"
#include "client/cli/device_memory/compute_device.h"
#include "client/cli/exit_code.h"
#include "client/cli/progress.h"
#include "server/base/status_macros.h"

namespace annulus::cli::bench {
namespace {

// What was measured of one direction, a value for each repetition.
struct PhaseSeries {
  ring::Direction direction = ring::Direction::kForward;
  double flops = 0;
  std::vector<double> wall_seconds, rates, window_shares, overlap_ratios, exposed_seconds;
  std::vector<double> kernel_seconds, efficiencies;

  void Add(const client::AttendReport& report, double ceiling) {
    const client::Timing timing = report.Total();
    wall_seconds.push_back(report.wall_seconds);
    rates.push_back(flops / report.wall_seconds);
    if (ceiling > 0) window_shares.push_back(rates.back() / ceiling);
    overlap_ratios.push_back(timing.overlap_ratio());
    exposed_seconds.push_back(timing.exposed_comm_seconds);
  }
  void AddKernel(double seconds) {
    kernel_seconds.push_back(seconds);
    efficiencies.push_back(seconds / wall_seconds.back());
  }
};

RingPhase PhaseOf(const PhaseSeries& series, double best_ceiling) {
  RingPhase phase;
  phase.direction = series.direction;
  phase.flops = series.flops;
  phase.wall_seconds = SpreadOf(series.wall_seconds);
  phase.rate = SpreadOf(series.rates);
  if (best_ceiling > 0) {
    phase.share = phase.rate.max / best_ceiling;
    phase.window_share = SpreadOf(series.window_shares);
  }
  phase.overlap_ratio = SpreadOf(series.overlap_ratios).median;
  phase.exposed_comm_seconds = SpreadOf(series.exposed_seconds).median;
  phase.kernel_seconds = SpreadOf(series.kernel_seconds);
  phase.efficiency = SpreadOf(series.efficiencies);
  return phase;
}

class RingBench {
 public:
  RingBench(const RunFlags& flags, RingJob* job) : flags_(flags), job_(job) {}

  absl::Status Prepare(const annulusComputeV1* api, int worker_threads) {
    ANNULUS_ASSIGN_OR_RETURN(const ring::Spec spec,
                             SpecFromFlags(flags_.shape, ring::Direction::kForward,
                                           job_->problem.query_length, job_->problem.kv_length));
    shape_ = {job_->problem, spec.mask};
    ANNULUS_ASSIGN_OR_RETURN(
        device_, ComputeDevice::Open(api, flags_.shape.context_parallel_size * worker_threads, 0,
                                     flags_.compute_provider));
    ANNULUS_RETURN_IF_ERROR(
        UsageError(KernelCase::CheckSupported(*device_, shape_, flags_.backward)));
    std::vector<ring::Direction> directions{ring::Direction::kForward};
    if (flags_.backward) directions.push_back(ring::Direction::kBackward);
    for (const ring::Direction direction : directions) {
      PhaseSeries& series = series_.emplace_back();
      series.direction = direction;
      series.flops = Flops(shape_, direction);
    }
    return absl::OkStatus();
  }

  absl::Status Measure(client::Client* client, const std::string& coordinator) {
    ANNULUS_ASSIGN_OR_RETURN(RingAttention attention,
                             RingAttention::Create(client, coordinator, flags_, *job_));
    ANNULUS_ASSIGN_OR_RETURN(
        kernel_, KernelCase::Create(device_.get(), shape_, flags_.backward, SeedOf(flags_)));
    memory_ = attention.memory().Used();
    devices_ = attention.memory().worker_devices;
    if (device_->has_ceilings()) {
      ANNULUS_RETURN_IF_ERROR(device_->MeanCeiling(ANNULUS_CEILING_MEMORY_READ).status());
    }
    // Not counted: makes the plan, leases the tensors and lets both allocate.
    ANNULUS_RETURN_IF_ERROR(attention.Run("warming up").status());
    for (const PhaseSeries& series : series_) {
      ANNULUS_RETURN_IF_ERROR(kernel_->Run(series.direction).status());
    }
    for (int i = 0; i < flags_.repeat; ++i) {
      ANNULUS_RETURN_IF_ERROR(
          RunOnce(&attention, absl::StrFormat("%d of %d", i + 1, flags_.repeat)));
    }
    return absl::OkStatus();
  }

  RingBenchResult Result() const {
    RingBenchResult result;
    const double peak = device_->best_ceiling(ANNULUS_CEILING_MULTIPLY_ADD_F32);
    result.ceiling = {device_->threads(), device_->description(), peak,
                      device_->best_ceiling(ANNULUS_CEILING_MEMORY_READ)};
    result.memory = memory_;
    result.devices = devices_;
    for (const PhaseSeries& series : series_) result.phases.push_back(PhaseOf(series, peak));
    return result;
  }

 private:
  absl::Status RunOnce(RingAttention* attention, const std::string& which) {
    ANNULUS_ASSIGN_OR_RETURN(const double before, MultiplyAdd());
    ANNULUS_ASSIGN_OR_RETURN(const Repetition repetition, attention->Run("ring " + which));
    ANNULUS_ASSIGN_OR_RETURN(const double after, MultiplyAdd());
    const ProgressBar bar("kernel " + which, [] { return -1.0; });
    for (PhaseSeries& series : series_) {
      series.Add(
          series.direction == ring::Direction::kForward ? repetition.forward : *repetition.backward,
          (before + after) / 2);
      ANNULUS_ASSIGN_OR_RETURN(const double seconds, kernel_->Run(series.direction));
      series.AddKernel(seconds / devices_);
    }
    return absl::OkStatus();
  }
  // 0 where the device has no ceiling.
  absl::StatusOr<double> MultiplyAdd() {
    if (!device_->has_ceilings()) return 0.0;
    return device_->MeanCeiling(ANNULUS_CEILING_MULTIPLY_ADD_F32);
  }

  const RunFlags& flags_;
  RingJob* job_;
  AttentionShape shape_;
  std::unique_ptr<ComputeDevice> device_;
  std::unique_ptr<KernelCase> kernel_;  // after the device that its tensors belong to
  std::vector<PhaseSeries> series_;
  MemoryUsed memory_;
  int devices_ = 1;
};

}  // namespace

absl::StatusOr<RingBenchResult> RunRingBench(const annulusComputeV1* api, const RunFlags& flags,
                                             int worker_threads, RingJob* job) {
  RingBench bench(flags, job);
  ANNULUS_RETURN_IF_ERROR(bench.Prepare(api, worker_threads));
  ANNULUS_RETURN_IF_ERROR(WithRing("annulus bench ring", flags, job,
                                   [&](client::Client* client, const std::string& coordinator) {
                                     return bench.Measure(client, coordinator);
                                   }));
  return bench.Result();
}

}  // namespace annulus::cli::bench
