// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "annulus/rank_client.h"
#include "client/cli/device_memory/device_shard.h"
#include "client/cli/problem.h"

namespace annulus::cli {

struct DeviceRingOptions {
  std::string coordinator;
  std::string client_name;
  client::GroupOptions group;           // as it was ensured
  std::vector<std::string> workers;     // of the group, in rank order
  std::vector<ComputeDevice*> devices;  // of this process: where each rank's rows lie
  client::Layout layout = client::Layout::kZigzag;
  absl::Duration timeout = absl::Seconds(30);  // of attaching
};

// The tensors of a problem in device memory of this process, each rank's rows on the device that
// its worker computes on, where the worker uses them in place: one RankClient for each rank, their
// collectives called together. Not thread safe.
class DeviceRing {
 public:
  // Allocates and attaches; the tensors are zeros. Errors as of DeviceShard::Create and of
  // RankClient::Attach.
  static absl::StatusOr<std::unique_ptr<DeviceRing>> Create(const DeviceRingOptions& options,
                                                            const Problem& problem, bool backward);

  // Attaches anew, on the same memory: for the time after a worker of this group was lost and
  // another one took its name. The process of the lost one must have ended, or it might still
  // write.
  absl::Status Reattach();

  absl::Status Upload(const ProblemTensors& whole);
  absl::Status Download(const ProblemTensors& whole);

  // Of all ranks together; wall_seconds is that of the slowest. Errors name the rank that is to
  // blame, as those of client::Client.
  absl::StatusOr<client::AttendReport> Attend(const client::AttendOptions& options);
  absl::StatusOr<client::AttendReport> AttendBackward(const std::string& forward_request_id,
                                                      const client::AttendOptions& options);
  absl::Status ReleaseRetained(const std::string& request_id);

 private:
  struct Rank {
    std::unique_ptr<DeviceShard> shard;
    std::unique_ptr<client::RankClient> client;
    client::DeviceRegion region;  // goes before both
  };
  using Call = std::function<absl::StatusOr<client::AttendReport>(Rank* rank)>;

  DeviceRing(const DeviceRingOptions& options, const Problem& problem)
      : options_(options), problem_(problem), ranks_(options.workers.size()) {}
  absl::StatusOr<client::AttendReport> OnEachRank(const Call& call);

  const DeviceRingOptions options_;
  const Problem problem_;
  std::vector<Rank> ranks_;
};

}  // namespace annulus::cli
