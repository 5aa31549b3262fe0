// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "annulus/client.h"
#include "client/cli/device_memory/client_memory.h"
#include "client/cli/device_memory/device_ring.h"
#include "client/cli/flags.h"
#include "client/cli/problem.h"
#include "client/cli/run_result.h"
#include "client/io/tensor_file.h"

namespace annulus::cli {

// Attention over a ring as the flags ask for it: what `run` and `bench ring` share.
struct RingJob {
  client::AttendOptions attend;
  client::GroupOptions group;
  std::optional<io::TensorFile> input;
  Problem problem;
};

// Everything that is the user's, before the first process is started. Usage errors.
absl::StatusOr<RingJob> ResolveRingJob(const RunFlags& flags);

// Runs `work` with a client of the cluster that the flags name, or of one of our own that ends with
// this (then job->group gets its members). The group is deleted afterwards unless the flags name
// it. If a cluster of our own breaks, what its processes wrote last goes to stderr.
absl::Status WithRing(const std::string& client_name, const RunFlags& flags, RingJob* job,
                      const std::function<absl::Status(client::Client* client,
                                                       const std::string& coordinator)>& work);

// The same attention again and again on a ring that stands, with the tensors in memory: the host's,
// or that of the workers' devices (--client-memory).
class RingAttention {
 public:
  // Makes the group and the tensors. The arguments must outlive it.
  static absl::StatusOr<RingAttention> Create(client::Client* client,
                                              const std::string& coordinator, const RunFlags& flags,
                                              const RingJob& job);

  // Forward, and backward where the flags ask for it. `label` names the bar on a terminal.
  absl::StatusOr<Repetition> Run(const std::string& label);

  // Brings the outputs to tensors(), where they are not there anyway.
  absl::Status Collect();

  // In the host's memory; the outputs hold what they should after Collect.
  const ProblemTensors& tensors() const { return tensors_; }
  const ClientMemory& memory() const { return memory_; }

 private:
  RingAttention(client::Client* client, const std::string& coordinator, const RunFlags& flags,
                const RingJob& job)
      : client_(client), coordinator_(&coordinator), flags_(&flags), job_(&job) {}
  absl::Status MakeDeviceRing();
  absl::StatusOr<client::AttendReport> Forward(const client::AttendOptions& options);
  absl::StatusOr<client::AttendReport> Backward(const std::string& forward_request_id,
                                                const client::AttendOptions& options);
  absl::Status ReleaseRetained();

  client::Client* client_;
  const std::string* coordinator_;
  const RunFlags* flags_;
  const RingJob* job_;
  ClientMemory memory_;
  ProblemTensors tensors_;
  std::unique_ptr<DeviceRing> ring_;  // null: the host's memory. Goes before memory_
  std::string last_forward_;  // whose retained KV the next run drops; the last goes with the group
};

}  // namespace annulus::cli
