// SPDX-License-Identifier: Apache-2.0
#include "client/cli/device_memory/compute_device.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "client/cli/flags.h"
#include "server/base/plugin_library.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
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
                                                                   int threads, int ordinal,
                                                                   const std::string& provider) {
  if (!provider.empty() && api->abi_minor < 2) {
    return absl::FailedPreconditionError(absl::StrCat("compute plugin \"", api->name,
                                                      "\" is of ABI minor ", api->abi_minor,
                                                      ", provider \"", provider, "\" takes 2"));
  }
  annulusComputeOptions options = {};
  options.struct_size = sizeof(options);
  options.device_ordinal = ordinal;
  options.threads = threads;
  options.provider = provider.empty() ? nullptr : provider.c_str();
  annulusDevice* opened = nullptr;
  const annulusComputeStatus status = api->open(&options, &opened);
  if (status != ANNULUS_COMPUTE_OK) {
    const absl::Status failure = absl::FailedPreconditionError(
        absl::StrCat("compute device \"", api->name, "\" does not open: ", api->last_error()));
    const bool of_provider = !provider.empty() && status == ANNULUS_COMPUTE_INVALID_ARGUMENT;
    return of_provider ? UsageErrorIn("--compute-provider", failure) : failure;
  }
  std::unique_ptr<ComputeDevice> device(new ComputeDevice(api, opened, threads));
  ANNULUS_RETURN_IF_ERROR(device->ReadInfo());
  ANNULUS_RETURN_IF_ERROR(device->MakeQueue());
  return device;
}

absl::Status ComputeDevice::ReadInfo() {
  annulusDeviceInfo info = {};
  info.struct_size = sizeof(info);
  ANNULUS_RETURN_IF_ERROR(Check(api_->device_info(device_, &info)));
  description_ = info.description;
  bus_id_ = info.bus_id;
  host_memory_ = info.host_memory == 1;
  if (host_memory_ || (api_->abi_minor >= 2 && api_->copy != nullptr)) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("compute device \"", description_,
                                               "\" has memory that the host cannot touch, and "
                                               "cannot copy"));
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

absl::Status ComputeDevice::Copy(const annulusCopyArgs& args) {
  if (!host_memory_) return Time([&] { return api_->copy(stream_, &args); }).status();
  for (size_t row = 0; row < args.rows; ++row) {
    std::memcpy(static_cast<char*>(args.to) + row * args.to_pitch,
                static_cast<const char*>(args.from) + row * args.from_pitch, args.row_bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<client::DeviceMemoryHandle> ComputeDevice::Export(const void* memory) const {
  annulusMemoryHandle exported = {};
  exported.struct_size = sizeof(exported);
  exported.descriptor = -1;
  ANNULUS_RETURN_IF_ERROR(Check(api_->export_memory(device_, memory, &exported)));
  client::DeviceMemoryHandle handle;
  if (exported.kind == ANNULUS_MEMORY_DESCRIPTOR) {
    handle.kind = client::DeviceMemoryHandle::Kind::kDescriptor;
    handle.descriptor = exported.descriptor;
  }
  std::copy(std::begin(exported.ipc), std::end(exported.ipc), handle.ipc.begin());
  handle.allocation_bytes = exported.bytes;
  handle.offset = exported.offset;
  handle.bus_id = bus_id_;
  return handle;
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

}  // namespace annulus::cli
