// SPDX-License-Identifier: Apache-2.0
#include "client/src/execute.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/src/fan_out.h"
#include "client/src/proto_convert.h"
#include "client/src/verdict.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"
#include "server/ring/partition.h"

namespace annulus::client {
namespace {

constexpr int kAttempts = 3;
// A call that finds its epoch over joins the next one if that forms at once; a call never spends
// its deadline waiting for workers to replace the lost.
constexpr absl::Duration kRejoinWait = absl::Milliseconds(1500);

std::vector<ring::RankShard> Shards(const ring::Spec& spec) {
  const auto q = ring::Partition(spec.layout, spec.query_length, spec.context_parallel_size);
  const auto kv = ring::Partition(spec.layout, spec.kv_length, spec.context_parallel_size);
  std::vector<ring::RankShard> shards;
  for (int rank = 0; rank < spec.context_parallel_size; ++rank) {
    const auto r = static_cast<size_t>(rank);
    shards.push_back({rank, q[r], kv[r]});
  }
  return shards;
}

std::vector<v1::GroupMember> MembersToCall(const v1::Group& group, int only_rank) {
  std::vector<v1::GroupMember> members;
  for (const v1::GroupMember& member : group.members()) {
    if (only_rank < 0 || member.rank() == only_rank) members.push_back(member);
  }
  std::sort(members.begin(), members.end(),
            [](const auto& a, const auto& b) { return a.rank() < b.rank(); });
  return members;
}

// Our knowledge was old, not the service at fault: worth another attempt.
bool WasOutOfDate(const absl::Status& status) {
  const auto info = GetFaultInfo(status);
  if (info && info->reason == "RESIDENT_MISSING") return false;
  return absl::IsFailedPrecondition(status) || absl::IsNotFound(status) ||
         absl::IsUnauthenticated(status);
}

class Attempt {
 public:
  Attempt(Cluster* cluster, StagingPool* pool, const Job& job, absl::Time deadline)
      : cluster_(cluster), pool_(pool), job_(job), deadline_(deadline) {}

  // `ended_epoch`: of the attempt before this one; 0 for the first.
  absl::StatusOr<AttendReport> Run(uint64_t ended_epoch) {
    ANNULUS_RETURN_IF_ERROR(FindGroup(ended_epoch));
    ring::Spec spec = job_.spec;
    spec.context_parallel_size = group_.options().size();
    spec.window_size = group_.options().window_size();
    ANNULUS_ASSIGN_OR_RETURN(plan_, cluster_->Plan(spec, deadline_));
    const std::vector<ring::RankShard> shards = Shards(spec);
    ANNULUS_RETURN_IF_ERROR(BuildCalls());
    DataPlane plane(job_, shards, &cluster_->regions(), pool_);
    absl::Status ready = plane.Prepare(&calls_, deadline_);
    if (!ready.ok()) return Failed(ready);
    for (RankCall& call : calls_) {
      call.request.set_timeout_seconds(
          std::max(1e-3, absl::ToDoubleSeconds(deadline_ - absl::Now())));
    }
    const std::vector<RankAnswer> answers = FanOut(calls_, deadline_);
    const absl::Status verdict = Verdict(answers);
    if (!verdict.ok()) {
      if (!AllQuiet(answers)) ANNULUS_RETURN_IF_ERROR(plane.Isolate());
      return Failed(verdict);
    }
    const absl::Status collected = plane.Collect(calls_, deadline_);
    if (!collected.ok()) return Failed(collected);
    return Report(plane, answers);
  }
  uint64_t epoch() const { return group_.epoch(); }

 private:
  absl::Status FindGroup(uint64_t ended_epoch) {
    const bool again = ended_epoch != 0;
    auto group = cluster_->FindGroup(
        job_.group, again ? std::min(deadline_, absl::Now() + kRejoinWait) : deadline_);
    if (!group.ok() && again) return cluster_->Explain(group.status(), job_.group, ended_epoch);
    ANNULUS_RETURN_IF_ERROR(group.status());
    group_ = *std::move(group);
    return absl::OkStatus();
  }

  absl::Status BuildCalls() {
    const std::vector<v1::GroupMember> members = MembersToCall(group_, job_.only_rank);
    if (members.empty()) return absl::FailedPreconditionError("this rank is not in the group");
    auto links = cluster_->Links(members, deadline_);
    if (!links.ok()) return Failed(links.status());
    v1::AttendRequest request = ToProto(job_, plan_.digest);
    request.mutable_fence()->set_term(group_.term());
    request.mutable_fence()->set_group(group_.name());
    request.mutable_fence()->set_epoch(group_.epoch());
    request.mutable_fence()->set_request_id(job_.request_id(group_.epoch()));
    for (size_t i = 0; i < members.size(); ++i) {
      calls_.push_back({members[i].rank(), members[i].worker(), (*links)[i], request});
      nodes_.push_back(members[i].node());
    }
    return absl::OkStatus();
  }

  static absl::Status Verdict(const std::vector<RankAnswer>& answers) {
    std::vector<RankStatus> outcomes;
    outcomes.reserve(answers.size());
    for (const RankAnswer& answer : answers) outcomes.push_back(answer.outcome);
    return ChooseVerdict(outcomes);
  }
  static bool AllQuiet(const std::vector<RankAnswer>& answers) {
    return std::all_of(answers.begin(), answers.end(),
                       [](const RankAnswer& answer) { return KnownQuiet(answer.outcome.status); });
  }

  // Forgets what the failure makes doubtful, and asks who is to blame where we only know that a
  // worker is gone.
  absl::Status Failed(const absl::Status& failure) {
    const auto info = GetFaultInfo(failure);
    absl::Status status = info && info->reason == "WORKER_UNREACHABLE"
                              ? cluster_->Explain(failure, group_.name(), group_.epoch())
                              : failure;
    if (absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status)) return status;
    cluster_->InvalidateGroup(group_.name(), group_.epoch(), EndsEpoch(status));
    if (absl::IsNotFound(status)) cluster_->ForgetPlans();
    for (const RankCall& call : calls_) {
      if (!call.link->alive() || WasOutOfDate(status)) cluster_->DropLink(call.worker);
    }
    return status;
  }

  AttendReport Report(const DataPlane& plane, const std::vector<RankAnswer>& answers) const {
    AttendReport report;
    report.request_id = calls_.front().request.fence().request_id();
    report.group = group_.name();
    report.epoch = group_.epoch();
    report.plan_digest = plan_.digest;
    report.steps = plan_.steps;
    for (size_t i = 0; i < calls_.size(); ++i) {
      RankReport rank;
      rank.rank = calls_[i].rank;
      rank.worker = calls_[i].worker;
      rank.node = nodes_[i];
      rank.data_path = plane.path(i);
      FillReport(answers[i].response, &rank);
      report.ranks.push_back(std::move(rank));
    }
    return report;
  }

  Cluster* const cluster_;
  StagingPool* const pool_;
  const Job& job_;
  const absl::Time deadline_;
  v1::Group group_;
  PreparedPlan plan_;
  std::vector<RankCall> calls_;
  std::vector<std::string> nodes_;
};

}  // namespace

absl::StatusOr<AttendReport> Execute(Cluster* cluster, StagingPool* pool, const Job& job) {
  const absl::Time start = absl::Now();
  const absl::Time deadline = start + job.options.deadline;
  uint64_t ended_epoch = 0;
  for (int number = 1;; ++number) {
    Attempt attempt(cluster, pool, job, deadline);
    auto report = attempt.Run(ended_epoch);
    if (report.ok()) {
      report->wall_seconds = absl::ToDoubleSeconds(absl::Now() - start);
      return report;
    }
    ended_epoch = std::max(ended_epoch, attempt.epoch());
    if (number == kAttempts || !WasOutOfDate(report.status()) || absl::Now() >= deadline) {
      return report;
    }
  }
}

}  // namespace annulus::client
