// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"

namespace annulus::cli::bench {

// The table of a compute plugin by name, path or "" (server/base/plugin_library.h). A usage error
// that names --compute-plugin.
absl::StatusOr<const annulusComputeV1*> LoadComputePlugin(const std::string& selection);

// A device of this process with one stream, to be timed. Used from one thread.
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

  // FAILED_PRECONDITION if the plugin refuses, UNIMPLEMENTED if the host cannot touch its memory.
  static absl::StatusOr<std::unique_ptr<ComputeDevice>> Open(const annulusComputeV1* api,
                                                             int threads);
  ~ComputeDevice();
  ComputeDevice(const ComputeDevice&) = delete;
  ComputeDevice& operator=(const ComputeDevice&) = delete;

  const annulusComputeV1& api() const { return *api_; }
  annulusDevice* device() const { return device_; }
  annulusStream* stream() const { return stream_; }
  const std::string& description() const { return description_; }
  int threads() const { return threads_; }

  // OK, or the reason that the plugin gives.
  absl::Status Check(annulusComputeStatus status) const;
  // 64-byte aligned, zeroed.
  absl::StatusOr<Memory> Allocate(size_t bytes);
  // Seconds from before the call until the device has done what it put on the stream.
  absl::StatusOr<double> Time(const Enqueue& enqueue);

  // Runs a ceiling a few times and returns the mean rate a second: operations or bytes.
  absl::StatusOr<double> MeanCeiling(annulusCeiling ceiling);
  // The best rate that any run of MeanCeiling has seen; 0 before the first.
  double best_ceiling(annulusCeiling ceiling) const { return best_[ceiling]; }

 private:
  ComputeDevice(const annulusComputeV1* api, annulusDevice* device, int threads)
      : api_(api), device_(device), threads_(threads) {}
  absl::Status MakeQueue();

  const annulusComputeV1* api_;
  annulusDevice* device_;
  annulusStream* stream_ = nullptr;
  annulusEvent* event_ = nullptr;
  std::string description_;
  int threads_;
  double best_[2] = {};
};

}  // namespace annulus::cli::bench
