// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/bench/attention_work.h"
#include "client/cli/device_memory/compute_device.h"
#include "kernels/compute_plugin.h"

namespace annulus::cli::bench {

// One shape of attention on a device with all its tensors, inputs drawn from N(0,1). Both
// directions may be run any number of times in any order. Not longer than the device.
class KernelCase {
 public:
  // Whether the device takes the shape: INVALID_ARGUMENT with its reason, UNIMPLEMENTED for a
  // backward or a window that it does not have.
  static absl::Status CheckSupported(const ComputeDevice& device, const AttentionShape& shape,
                                     bool backward);
  // RESOURCE_EXHAUSTED if the device has no memory for it.
  static absl::StatusOr<std::unique_ptr<KernelCase>> Create(ComputeDevice* device,
                                                            const AttentionShape& shape,
                                                            bool backward, uint64_t seed);

  // Seconds of one call of attend or attend_backward. What a ring does once and not in every step
  // is done before and not counted: (o, lse) = identity forward, delta = rowsum(do * o) backward.
  absl::StatusOr<double> Run(ring::Direction direction);

 private:
  KernelCase(ComputeDevice* device, const AttentionShape& shape) : device_(device), shape_(shape) {}
  KernelCase(const KernelCase&) = delete;
  KernelCase& operator=(const KernelCase&) = delete;
  absl::Status MakeTensors(bool backward, uint64_t seed);
  absl::StatusOr<annulusTensor> NewTensor(annulusDtype dtype, bool of_queries);
  absl::StatusOr<annulusRowStat> NewRowStat();
  absl::StatusOr<double> RunForward();
  absl::StatusOr<double> RunBackward();

  ComputeDevice* device_;
  const AttentionShape shape_;
  std::vector<ComputeDevice::Memory> memory_;
  annulusSpan q_span_ = {};
  annulusSpan kv_span_ = {};
  annulusAttendArgs forward_ = {};
  annulusAttendBackwardArgs backward_ = {};
  bool forward_done_ = false;  // (o, lse) stands, the same after every run
  bool delta_done_ = false;
};

}  // namespace annulus::cli::bench
