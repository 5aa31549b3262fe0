// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "annulus/device_memory.h"
#include "kernels/compute_plugin.h"

namespace annulus::cli {

// The table of a compute plugin by name, path or "" (server/base/plugin_library.h). A usage error
// that names --compute-plugin.
absl::StatusOr<const annulusComputeV1*> LoadComputePlugin(const std::string& selection);

// A device that this process opened by a compute plugin, with one stream: to be timed, and to hold
// memory that workers on the same device use in place. Used from one thread.
class ComputeDevice {
 public:
  // Puts work on the stream.
  using Enqueue = std::function<annulusComputeStatus()>;
  struct FreeMemory {
    const annulusComputeV1* api;
    annulusDevice* device;
    void operator()(void* memory) const { api->free(device, memory); }
  };
  using Memory = std::unique_ptr<void, FreeMemory>;  // not longer than the device

  // `provider`: which kernels of the plugin, "" the fastest; a usage error of --compute-provider if
  // the plugin refuses it. FAILED_PRECONDITION if it refuses anything else, UNIMPLEMENTED if
  // neither the host can touch its memory nor the device copy.
  static absl::StatusOr<std::unique_ptr<ComputeDevice>> Open(const annulusComputeV1* api,
                                                             int threads, int ordinal = 0,
                                                             const std::string& provider = "");
  ~ComputeDevice();
  ComputeDevice(const ComputeDevice&) = delete;
  ComputeDevice& operator=(const ComputeDevice&) = delete;

  const annulusComputeV1& api() const { return *api_; }
  annulusDevice* device() const { return device_; }
  annulusStream* stream() const { return stream_; }
  const std::string& description() const { return description_; }
  // "0000:3b:00.0"; empty: not on a bus.
  const std::string& bus_id() const { return bus_id_; }
  int threads() const { return threads_; }
  // Whether another process on this device can be told of its memory.
  bool exports() const { return !host_memory_ && api_->export_memory != nullptr; }

  // OK, or the reason that the plugin gives.
  absl::Status Check(annulusComputeStatus status) const;
  // 64-byte aligned, zeroed.
  absl::StatusOr<Memory> Allocate(size_t bytes);
  // Copies rows between the host's memory and the device's; done when it returns.
  absl::Status Copy(const annulusCopyArgs& args);
  // Memory of Allocate as RankClient::LeaseDeviceMemory takes it. A descriptor in it is the
  // caller's to close.
  absl::StatusOr<client::DeviceMemoryHandle> Export(const void* memory) const;
  // Seconds from before the call until the device has done what it put on the stream.
  absl::StatusOr<double> Time(const Enqueue& enqueue);

  // Whether the plugin has ceilings to give a share of; MeanCeiling needs them.
  bool has_ceilings() const { return api_->run_ceiling != nullptr; }
  // Runs a ceiling a few times and returns the mean rate a second: operations or bytes.
  absl::StatusOr<double> MeanCeiling(annulusCeiling ceiling);
  // The best rate that any run of MeanCeiling has seen; 0 before the first.
  double best_ceiling(annulusCeiling ceiling) const { return best_[ceiling]; }

 private:
  ComputeDevice(const annulusComputeV1* api, annulusDevice* device, int threads)
      : api_(api), device_(device), threads_(threads) {}
  absl::Status ReadInfo();
  absl::Status MakeQueue();

  const annulusComputeV1* api_;
  annulusDevice* device_;
  annulusStream* stream_ = nullptr;
  annulusEvent* event_ = nullptr;
  std::string description_;
  std::string bus_id_;
  bool host_memory_ = true;
  int threads_;
  double best_[2] = {};
};

}  // namespace annulus::cli
