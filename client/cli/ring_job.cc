// SPDX-License-Identifier: Apache-2.0
#include "client/cli/ring_job.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_format.h"
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

absl::StatusOr<std::unique_ptr<EmbeddedCluster>> StartOwnCluster(const RunFlags& flags) {
  EmbeddedClusterOptions options;
  options.workers = flags.shape.context_parallel_size;
  options.ranks_per_node = flags.ranks_per_node;
  options.threads = flags.threads;
  options.pin_threads = flags.pin_threads;
  options.compute_plugin = flags.device.empty() ? flags.compute_plugin : flags.device;
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
  ANNULUS_ASSIGN_OR_RETURN(ProblemTensors tensors,
                           MakeTensors(client, job.problem, flags, job.input));
  ANNULUS_RETURN_IF_ERROR(client->EnsureGroup(job.group).status());
  return RingAttention(client, coordinator, flags, job, std::move(tensors));
}

absl::StatusOr<Repetition> RingAttention::Run(const std::string& label) {
  const std::string& group = job_->group.name;
  const ProblemTensors& t = tensors_;
  client::AttendOptions options = job_->attend;
  options.retain = flags_->backward && flags_->retain;
  if (options.retain && !last_forward_.empty()) {
    ANNULUS_RETURN_IF_ERROR(client_->ReleaseRetained(group, last_forward_));
  }
  const ProgressBar bar(label, GroupProgress(*coordinator_, group));
  Repetition repetition;
  ANNULUS_ASSIGN_OR_RETURN(repetition.forward,
                           client_->Attend({group, t.q, t.k, t.v, t.o_exact, t.lse}, options));
  last_forward_ = repetition.forward.request_id;
  if (!flags_->backward) return repetition;
  client::AttendBackwardCall call{group, t.q,  t.k,  t.v,  t.o_exact,    t.lse,
                                  t.d_o, t.dq, t.dk, t.dv, std::string()};
  if (options.retain) call.forward_request_id = repetition.forward.request_id;
  ANNULUS_ASSIGN_OR_RETURN(repetition.backward, client_->AttendBackward(call, options));
  return repetition;
}

}  // namespace annulus::cli
