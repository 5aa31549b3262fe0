// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench/compute_device.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "client/cli/flags.h"
#include "server/base/plugin_library.h"
#include "server/base/status_macros.h"

namespace annulus::cli::bench {
namespace {

// Of about a millisecond each: longer than a thread takes to wake, shorter than a neighbour's turn.
constexpr int kCeilingRuns = 8;
constexpr std::chrono::minutes kDeadline{10};

int64_t MonotonicNs(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

}  // namespace

absl::StatusOr<const annulusComputeV1*> LoadComputePlugin(const std::string& selection) {
  const absl::StatusOr<PluginLibrary> library = PluginLibrary::Load("compute", selection);
  if (!library.ok()) return UsageErrorIn("--compute-plugin", library.status());
  const auto table = library->Find<annulusComputeV1>(ANNULUS_COMPUTE_V1_SYMBOL);
  if (!table.ok()) return UsageErrorIn("--compute-plugin", table.status());
  return *table;
}

absl::StatusOr<std::unique_ptr<ComputeDevice>> ComputeDevice::Open(const annulusComputeV1* api,
                                                                   int threads) {
  annulusComputeOptions options = {};
  options.struct_size = sizeof(options);
  options.threads = threads;
  if (api->run_ceiling == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("compute plugin \"", api->name, "\" has no ceiling to give a share of"));
  }
  annulusDevice* opened = nullptr;
  if (api->open(&options, &opened) != ANNULUS_COMPUTE_OK) {
    return absl::FailedPreconditionError(
        absl::StrCat("compute device \"", api->name, "\" does not open: ", api->last_error()));
  }
  std::unique_ptr<ComputeDevice> device(new ComputeDevice(api, opened, threads));
  annulusDeviceInfo info = {};
  info.struct_size = sizeof(info);
  ANNULUS_RETURN_IF_ERROR(device->Check(api->device_info(opened, &info)));
  if (info.host_memory != 1) {
    return absl::UnimplementedError(absl::StrCat("compute device \"", info.description,
                                                 "\" has memory that the host cannot touch"));
  }
  device->description_ = info.description;
  ANNULUS_RETURN_IF_ERROR(device->MakeQueue());
  return device;
}

absl::Status ComputeDevice::MakeQueue() {
  ANNULUS_RETURN_IF_ERROR(Check(api_->stream_create(device_, &stream_)));
  return Check(api_->event_create(device_, &event_));
}

ComputeDevice::~ComputeDevice() {
  if (event_ != nullptr) api_->event_destroy(event_);
  if (stream_ != nullptr) api_->stream_destroy(stream_);
  api_->close(device_);
}

absl::Status ComputeDevice::Check(annulusComputeStatus status) const {
  const std::string message =
      status == ANNULUS_COMPUTE_OK
          ? ""
          : absl::StrCat("compute device \"", api_->name, "\": ", api_->last_error());
  switch (status) {
    case ANNULUS_COMPUTE_OK:
      return absl::OkStatus();
    case ANNULUS_COMPUTE_INVALID_ARGUMENT:
      return absl::InvalidArgumentError(message);
    case ANNULUS_COMPUTE_OUT_OF_MEMORY:
      return absl::ResourceExhaustedError(message);
    case ANNULUS_COMPUTE_DEADLINE:
      return absl::DeadlineExceededError(message);
    case ANNULUS_COMPUTE_DEVICE_ERROR:
      break;
  }
  return absl::InternalError(message);
}

absl::StatusOr<ComputeDevice::Memory> ComputeDevice::Allocate(size_t bytes) {
  void* memory = nullptr;
  ANNULUS_RETURN_IF_ERROR(Check(api_->alloc(device_, bytes, &memory)));
  Memory owned(memory, FreeMemory{api_, device_});
  ANNULUS_RETURN_IF_ERROR(Time([&] { return api_->fill_zero(stream_, memory, bytes); }).status());
  return owned;
}

absl::StatusOr<double> ComputeDevice::Time(const Enqueue& enqueue) {
  const auto start = std::chrono::steady_clock::now();
  ANNULUS_RETURN_IF_ERROR(Check(enqueue()));
  ANNULUS_RETURN_IF_ERROR(Check(api_->event_record(event_, stream_)));
  ANNULUS_RETURN_IF_ERROR(
      Check(api_->event_synchronize(event_, MonotonicNs(start + kDeadline), nullptr)));
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

absl::StatusOr<double> ComputeDevice::MeanCeiling(annulusCeiling ceiling) {
  double sum = 0;
  for (int run = 0; run < kCeilingRuns; ++run) {
    double work = 0;
    ANNULUS_ASSIGN_OR_RETURN(const double seconds,
                             Time([&] { return api_->run_ceiling(stream_, ceiling, &work); }));
    sum += work / seconds;
    best_[ceiling] = std::max(best_[ceiling], work / seconds);
  }
  return sum / kCeilingRuns;
}

}  // namespace annulus::cli::bench
