// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "annulus/device_memory.h"
#include "annulus/rank_client.h"
#include "client/cli/device_memory/compute_device.h"
#include "client/cli/problem.h"

namespace annulus::cli {

// What one rank reads and writes, its own rows alone, in one allocation on a device of this
// process. Not longer than the device; used from one thread.
class DeviceShard {
 public:
  // RESOURCE_EXHAUSTED if the device has no memory for it.
  static absl::StatusOr<std::unique_ptr<DeviceShard>> Create(ComputeDevice* device,
                                                             const Problem& problem, bool backward,
                                                             client::RankShard rows);
  DeviceShard(const DeviceShard&) = delete;
  DeviceShard& operator=(const DeviceShard&) = delete;

  // At addresses that only the device may touch. o is what the service writes: float32 with
  // `backward`, as ProblemTensors::o_exact.
  struct Views {
    client::TensorView q, k, v, o, lse;
    client::TensorView d_o, dq, dk, dv;  // with `backward`
  };
  const Views& views() const { return views_; }
  const ComputeDevice& device() const { return *device_; }

  // Brings this rank's rows of the inputs here, or of the outputs to `whole`.
  absl::Status Upload(const ProblemTensors& whole);
  absl::Status Download(const ProblemTensors& whole);

  // Lets calls of `rank` use the memory in place, until the region is destroyed.
  absl::StatusOr<client::DeviceRegion> LeaseTo(client::RankClient* rank) const;

 private:
  DeviceShard(ComputeDevice* device, bool backward, client::RankShard rows)
      : device_(device), backward_(backward), rows_(std::move(rows)) {}
  absl::Status Allocate(const Problem& problem);
  // Rows of `shard`, the tokens of `ranges` in order, from or to their places in `whole`.
  absl::Status CopyRows(const client::TensorView& shard, const client::TensorView& whole,
                        const std::vector<client::TokenRange>& ranges, bool to_shard);

  ComputeDevice* const device_;
  const bool backward_;
  const client::RankShard rows_;
  size_t bytes_ = 0;
  std::unique_ptr<ComputeDevice::Memory> memory_;
  Views views_;
};

}  // namespace annulus::cli
