// SPDX-License-Identifier: Apache-2.0
#include "client/cli/ring_job.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/embedded_cluster.h"
#include "client/cli/exit_code.h"
#include "client/cli/interrupt.h"
#include "client/cli/progress.h"
#include "client/cli/run_progress.h"
#include "client/cli/units.h"
#include "client/src/request_id.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

constexpr absl::Duration kAttachTimeout = absl::Seconds(30);

absl::StatusOr<std::unique_ptr<EmbeddedCluster>> StartOwnCluster(const RunFlags& flags) {
  EmbeddedClusterOptions options;
  options.workers = flags.shape.context_parallel_size;
  options.ranks_per_node = flags.ranks_per_node;
  options.threads = flags.threads;
  options.pin_threads = flags.pin_threads;
  options.compute_plugin = ComputePluginOf(flags);
  options.compute_provider = flags.compute_provider;
  options.transport_plugin = flags.transport_plugin;
  if (!flags.memory_limit.empty()) {
    ANNULUS_ASSIGN_OR_RETURN(options.memory_limit_bytes, ParseBytes(flags.memory_limit));
  }
  return EmbeddedCluster::Start(options);
}

}  // namespace

absl::StatusOr<RingJob> ResolveRingJob(const RunFlags& flags) {
  ANNULUS_RETURN_IF_ERROR(CheckRunFlags(flags));
  RingJob job;
  ANNULUS_ASSIGN_OR_RETURN(job.attend, AttendOptionsFromFlags(flags));
  ANNULUS_ASSIGN_OR_RETURN(job.group, GroupFromFlags(flags));
  job.group.name =
      flags.group.empty() ? absl::StrFormat("run-%016x", client::RandomBits()) : flags.group;
  if (!flags.input.empty()) {
    auto input = io::TensorFile::Open(flags.input);
    if (!input.ok()) return UsageError(input.status());
    job.input = *std::move(input);
  }
  ANNULUS_ASSIGN_OR_RETURN(job.problem, ResolveProblem(flags, job.input));
  ANNULUS_RETURN_IF_ERROR(SpecFromFlags(flags.shape, ring::Direction::kForward,
                                        job.problem.query_length, job.problem.kv_length)
                              .status());
  return job;
}

absl::Status WithRing(const std::string& client_name, const RunFlags& flags, RingJob* job,
                      const std::function<absl::Status(client::Client* client,
                                                       const std::string& coordinator)>& work) {
  std::unique_ptr<EmbeddedCluster> own;
  std::string coordinator = flags.coordinator;
  if (coordinator.empty()) {
    ANNULUS_ASSIGN_OR_RETURN(own, StartOwnCluster(flags));
    coordinator = own->coordinator().listen;
    job->group.members = own->worker_names();
  }
  std::optional<ScopedCleanup> cleanup;
  if (own != nullptr) cleanup.emplace([raw = own.get()] { raw->Stop(); });
  const auto connect_and_work = [&]() -> absl::Status {
    client::ClientOptions options;
    options.coordinator = coordinator;
    options.name = client_name;
    options.connect_timeout = std::min(options.connect_timeout, job->attend.deadline);
    options.group_timeout = std::min(options.group_timeout, job->attend.deadline);
    ANNULUS_ASSIGN_OR_RETURN(const auto client, client::Client::Connect(options));
    absl::Status done = work(client.get(), coordinator);
    if (flags.group.empty()) {
      // What remains if the coordinator is gone is gone with it.
      const absl::Status ignored = client->DeleteGroup(job->group.name);
      (void)ignored;
    }
    return done;
  };
  absl::Status done = connect_and_work();
  if (own != nullptr && !done.ok() && ExitCodeFor(done) == kFault) {
    std::fputs(own->Logs().c_str(), stderr);
  }
  return done;
}

absl::StatusOr<RingAttention> RingAttention::Create(client::Client* client,
                                                    const std::string& coordinator,
                                                    const RunFlags& flags, const RingJob& job) {
  RingAttention made(client, coordinator, flags, job);
  ANNULUS_ASSIGN_OR_RETURN(made.tensors_, MakeTensors(client, job.problem, flags, job.input));
  ANNULUS_ASSIGN_OR_RETURN(const client::GroupInfo group, client->EnsureGroup(job.group));
  ANNULUS_ASSIGN_OR_RETURN(
      made.memory_, ChooseClientMemory(flags, coordinator, group, absl::Now() + kAttachTimeout));
  if (made.memory_.on_device()) ANNULUS_RETURN_IF_ERROR(made.MakeDeviceRing());
  return made;
}

absl::Status RingAttention::MakeDeviceRing() {
  DeviceRingOptions options;
  options.coordinator = *coordinator_;
  options.client_name = "annulus";
  options.group = job_->group;
  options.workers = memory_.workers;
  options.devices = memory_.of_rank;
  options.layout = job_->attend.layout;
  options.timeout = std::min<absl::Duration>(kAttachTimeout, job_->attend.deadline);
  ANNULUS_ASSIGN_OR_RETURN(ring_, DeviceRing::Create(options, job_->problem, flags_->backward));
  return ring_->Upload(tensors_);
}

absl::StatusOr<client::AttendReport> RingAttention::Forward(const client::AttendOptions& options) {
  if (ring_ != nullptr) return ring_->Attend(options);
  const ProblemTensors& t = tensors_;
  return client_->Attend({job_->group.name, t.q, t.k, t.v, t.o_exact, t.lse}, options);
}

absl::StatusOr<client::AttendReport> RingAttention::Backward(const std::string& forward_request_id,
                                                             const client::AttendOptions& options) {
  if (ring_ != nullptr) return ring_->AttendBackward(forward_request_id, options);
  const ProblemTensors& t = tensors_;
  return client_->AttendBackward({job_->group.name, t.q, t.k, t.v, t.o_exact, t.lse, t.d_o, t.dq,
                                  t.dk, t.dv, forward_request_id},
                                 options);
}

absl::Status RingAttention::ReleaseRetained() {
  if (ring_ != nullptr) return ring_->ReleaseRetained(last_forward_);
  return client_->ReleaseRetained(job_->group.name, last_forward_);
}

absl::Status RingAttention::Collect() {
  return ring_ == nullptr ? absl::OkStatus() : ring_->Download(tensors_);
}

absl::StatusOr<Repetition> RingAttention::Run(const std::string& label) {
  client::AttendOptions options = job_->attend;
  options.retain = flags_->backward && flags_->retain;
  if (options.retain && !last_forward_.empty()) ANNULUS_RETURN_IF_ERROR(ReleaseRetained());
  const ProgressBar bar(label, GroupProgress(*coordinator_, job_->group.name));
  Repetition repetition;
  ANNULUS_ASSIGN_OR_RETURN(repetition.forward, Forward(options));
  last_forward_ = repetition.forward.request_id;
  if (!flags_->backward) return repetition;
  ANNULUS_ASSIGN_OR_RETURN(repetition.backward,
                           Backward(options.retain ? last_forward_ : std::string(), options));
  return repetition;
}

}  // namespace annulus::cli
