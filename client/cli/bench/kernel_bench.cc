// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench/kernel_bench.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/kernel_case.h"
#include "client/cli/device_memory/compute_device.h"
#include "client/cli/exit_code.h"
#include "client/cli/progress.h"
#include "server/base/status_macros.h"

namespace annulus::cli::bench {
namespace {

// Up to this the tensors of all cases are made once; beyond it those of one case at a time, which
// costs the time to draw them anew in each round.
constexpr double kKeptBytesMax = 4.0 * (1 << 30);

// One shape in one direction on one device, and what was measured of it.
struct Series {
  ring::Direction direction = ring::Direction::kForward;
  std::vector<double> rates;
  std::vector<double> shares;
};

// One shape on one device: the directions share its tensors.
struct Place {
  ComputeDevice* device;
  const AttentionShape* shape;
  std::unique_ptr<KernelCase> made;  // null between its turns if not kept
  std::vector<Series> series;
};

class Bench {
 public:
  Bench(const annulusComputeV1* api, const KernelBenchOptions& options)
      : api_(api), options_(options) {}

  absl::StatusOr<KernelBenchResult> Run() {
    ANNULUS_RETURN_IF_ERROR(MakePlaces());
    const double windows =
        static_cast<double>(places_.size() * options_.directions.size()) * options_.rounds;
    {
      const ProgressBar bar("kernels",
                            [&] { return static_cast<double>(windows_done_.load()) / windows; });
      for (int round = 0; round < options_.rounds; ++round) ANNULUS_RETURN_IF_ERROR(RunRound());
    }
    return Result();
  }

 private:
  absl::Status MakePlaces() {
    double bytes = 0;
    for (const int threads : options_.threads) {
      ANNULUS_ASSIGN_OR_RETURN(auto device,
                               ComputeDevice::Open(api_, threads, 0, options_.compute_provider));
      if (!device->has_ceilings()) {
        return absl::UnimplementedError(
            absl::StrCat("compute plugin \"", api_->name, "\" has no ceiling to give a share of"));
      }
      for (const AttentionShape& shape : options_.shapes) {
        ANNULUS_RETURN_IF_ERROR(
            UsageError(KernelCase::CheckSupported(*device, shape, options_.backward())));
        bytes += TensorBytes(shape, options_.backward());
        places_.push_back({device.get(), &shape, nullptr, {}});
        for (const ring::Direction direction : options_.directions) {
          places_.back().series.push_back({direction, {}, {}});
        }
      }
      devices_.push_back(std::move(device));
    }
    keep_ = bytes <= kKeptBytesMax;
    return absl::OkStatus();
  }

  absl::Status RunRound() {
    for (const auto& device : devices_) {
      ANNULUS_RETURN_IF_ERROR(device->MeanCeiling(ANNULUS_CEILING_MEMORY_READ).status());
    }
    for (Place& place : places_) {
      if (place.made == nullptr) {
        ANNULUS_ASSIGN_OR_RETURN(
            place.made,
            KernelCase::Create(place.device, *place.shape, options_.backward(), options_.seed));
      }
      for (Series& series : place.series) {
        ANNULUS_RETURN_IF_ERROR(RunWindow(&place, &series));
        ++windows_done_;
      }
      if (!keep_) place.made.reset();
    }
    return absl::OkStatus();
  }

  absl::Status RunWindow(Place* place, Series* series) const {
    ComputeDevice* device = place->device;
    ANNULUS_ASSIGN_OR_RETURN(const double before,
                             device->MeanCeiling(ANNULUS_CEILING_MULTIPLY_ADD_F32));
    double seconds = 0;
    double flops = 0;
    do {
      ANNULUS_ASSIGN_OR_RETURN(const double call, place->made->Run(series->direction));
      seconds += call;
      flops += Flops(*place->shape, series->direction);
    } while (seconds < options_.min_seconds);
    ANNULUS_ASSIGN_OR_RETURN(const double after,
                             device->MeanCeiling(ANNULUS_CEILING_MULTIPLY_ADD_F32));
    series->rates.push_back(flops / seconds);
    series->shares.push_back(flops / seconds / ((before + after) / 2));
    return absl::OkStatus();
  }

  KernelBenchResult Result() const {
    KernelBenchResult result;
    for (const auto& device : devices_) {
      result.ceilings.push_back({device->threads(), device->description(),
                                 device->best_ceiling(ANNULUS_CEILING_MULTIPLY_ADD_F32),
                                 device->best_ceiling(ANNULUS_CEILING_MEMORY_READ)});
    }
    for (const Place& place : places_) {
      const double peak = place.device->best_ceiling(ANNULUS_CEILING_MULTIPLY_ADD_F32);
      for (const Series& series : place.series) {
        KernelResult& out = result.cases.emplace_back();
        out.shape = *place.shape;
        out.direction = series.direction;
        out.threads = place.device->threads();
        out.flops = Flops(*place.shape, series.direction);
        out.kv_bytes = KvBytes(*place.shape);
        out.rate = SpreadOf(series.rates);
        out.share = out.rate.max / peak;
        out.window_share = SpreadOf(series.shares);
        out.limit = MemoryLimit(out.flops, out.kv_bytes, peak,
                                place.device->best_ceiling(ANNULUS_CEILING_MEMORY_READ));
      }
    }
    return result;
  }

  const annulusComputeV1* api_;
  const KernelBenchOptions& options_;
  std::vector<std::unique_ptr<ComputeDevice>> devices_;
  std::vector<Place> places_;  // after the devices that their tensors belong to
  bool keep_ = false;
  std::atomic<int64_t> windows_done_{0};
};

}  // namespace

bool KernelBenchOptions::backward() const {
  return std::find(directions.begin(), directions.end(), ring::Direction::kBackward) !=
         directions.end();
}

absl::StatusOr<KernelBenchResult> RunKernelBench(const annulusComputeV1* api,
                                                 const KernelBenchOptions& options) {
  return Bench(api, options).Run();
}

}  // namespace annulus::cli::bench
