// SPDX-License-Identifier: Apache-2.0
#include "client/src/cluster.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/src/proto_convert.h"
#include "client/src/verdict.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"

namespace annulus::client {
namespace {

constexpr size_t kThreadsMax = 8;
constexpr size_t kPlansMax = 1024;
// A worker that we cannot reach may be well in the coordinator's eyes, and no later epoch comes.
constexpr absl::Duration kNextEpochWait = absl::Seconds(5);
// The coordinator learns of a silent worker about when we do.
constexpr absl::Duration kVerdictWait = absl::Seconds(1);
constexpr absl::Duration kVerdictPoll = absl::Milliseconds(50);
// A worker that was there a moment ago and does not answer in this time is taken for lost.
constexpr absl::Duration kSessionTimeout = absl::Milliseconds(1500);

absl::Status FromFault(const v1::GroupFault& fault) {
  return WithFaultInfo(absl::UnavailableError(fault.message()),
                       {.reason = fault.reason(),
                        .metadata = {{"rank", absl::StrCat(fault.culprit_rank())},
                                     {"worker", fault.culprit_worker()},
                                     {"step", absl::StrCat(fault.step())},
                                     {"group", fault.group()},
                                     {"epoch", absl::StrCat(fault.epoch())}}});
}

}  // namespace

absl::Status ForEachInParallel(size_t count, const std::function<absl::Status(size_t)>& work) {
  std::vector<absl::Status> results(count);
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i = next++; i < count; i = next++) results[i] = work(i);
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < std::min(count, kThreadsMax); ++i) threads.emplace_back(run);
  run();
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) ANNULUS_RETURN_IF_ERROR(result);
  return absl::OkStatus();
}

Cluster::Cluster(const ClusterOptions& options)
    : options_(options), self_(std::make_shared<std::pair<absl::Mutex, Cluster*>>()) {
  self_->second = this;
  regions_ = std::make_shared<RegionRegistry>([self = self_](uint64_t id) {
    absl::MutexLock lock(&self->first);
    if (self->second != nullptr) self->second->ReleaseRegion(id);
  });
}

Cluster::~Cluster() {
  absl::MutexLock lock(&self_->first);
  self_->second = nullptr;
}

absl::StatusOr<std::unique_ptr<Cluster>> Cluster::Connect(const ClusterOptions& options) {
  std::unique_ptr<Cluster> cluster(new Cluster(options));
  ANNULUS_ASSIGN_OR_RETURN(
      cluster->coordinator_,
      CoordinatorLink::Connect(options.coordinator, absl::Now() + options.connect_timeout));
  return cluster;
}

absl::StatusOr<v1::Group> Cluster::EnsureGroup(const GroupOptions& options, absl::Time deadline) {
  const v1::EnsureGroupRequest request = ToProto(options);
  {
    absl::MutexLock lock(&mutex_);
    KnownGroup& known = groups_[options.name];
    if (known.request.SerializeAsString() != request.SerializeAsString()) known.fresh = false;
    known.request = request;
    if (known.fresh) return known.group;
  }
  return Refresh(options.name, deadline);
}

absl::StatusOr<v1::Group> Cluster::FindGroup(const std::string& name, absl::Time deadline) {
  {
    absl::MutexLock lock(&mutex_);
    const auto known = groups_.find(name);
    if (known == groups_.end()) {
      return absl::NotFoundError(
          absl::StrCat("group \"", name, "\" is not known here: call EnsureGroup first"));
    }
    if (known->second.fresh) return known->second.group;
  }
  return Refresh(name, deadline);
}

absl::StatusOr<v1::Group> Cluster::Refresh(const std::string& name, absl::Time deadline) {
  v1::EnsureGroupRequest request;
  {
    absl::MutexLock lock(&mutex_);
    request = groups_[name].request;
    request.set_after_epoch(groups_[name].ended_epoch);
  }
  const absl::Time until = std::min(deadline, absl::Now() + options_.group_timeout);
  absl::StatusOr<v1::Group> group =
      request.after_epoch() == 0
          ? coordinator_->EnsureGroup(request, until)
          : coordinator_->EnsureGroup(request, std::min(until, absl::Now() + kNextEpochWait));
  if (!group.ok() && request.after_epoch() != 0) {
    request.set_after_epoch(0);
    group = coordinator_->EnsureGroup(request, until);
  }
  absl::MutexLock lock(&mutex_);
  if (!group.ok()) {
    if (groups_[name].group.name().empty()) groups_.erase(name);
    return group.status();
  }
  KnownGroup& known = groups_[name];
  known.group = *group;
  known.fresh = true;
  known.ended_epoch = 0;
  return group;
}

absl::Status Cluster::DeleteGroup(const std::string& name, absl::Time deadline) {
  {
    absl::MutexLock lock(&mutex_);
    groups_.erase(name);
  }
  return coordinator_->DeleteGroup(name, deadline);
}

absl::Status Cluster::Explain(const absl::Status& status, const std::string& group,
                              uint64_t epoch) {
  const absl::Time until = absl::Now() + kVerdictWait;
  while (absl::Now() < until) {
    const auto now = coordinator_->GetGroup(group, until);
    if (!now.ok()) return status;
    if (now->last_fault().epoch() == epoch && !now->last_fault().reason().empty()) {
      return FromFault(now->last_fault());
    }
    absl::SleepFor(kVerdictPoll);
  }
  return status;
}

void Cluster::InvalidateGroup(const std::string& name, uint64_t epoch, bool epoch_over) {
  absl::MutexLock lock(&mutex_);
  const auto known = groups_.find(name);
  if (known == groups_.end() || known->second.group.epoch() > epoch) return;
  known->second.fresh = false;
  if (epoch_over) known->second.ended_epoch = epoch;
}

absl::StatusOr<PreparedPlan> Cluster::Plan(const ring::Spec& spec, absl::Time deadline) {
  const v1::PlanSpec proto = ToProto(spec);
  const std::string key = proto.SerializeAsString();
  {
    absl::MutexLock lock(&mutex_);
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
  }
  ANNULUS_ASSIGN_OR_RETURN(const v1::PreparePlanResponse answer,
                           coordinator_->PreparePlan(proto, deadline));
  PreparedPlan plan{answer.digest(), answer.steps()};
  absl::MutexLock lock(&mutex_);
  if (plans_.size() >= kPlansMax) plans_.clear();
  plans_[key] = plan;
  return plan;
}

void Cluster::ForgetPlans() {
  absl::MutexLock lock(&mutex_);
  plans_.clear();
}

absl::StatusOr<std::shared_ptr<WorkerLink>> Cluster::Link(const v1::GroupMember& member,
                                                          absl::Time deadline) {
  {
    absl::MutexLock lock(&mutex_);
    const auto known = links_.find(member.worker());
    if (known != links_.end() && known->second.incarnation == member.incarnation() &&
        known->second.link->alive()) {
      return known->second.link;
    }
  }
  const absl::Time until =
      std::min(deadline, absl::Now() + std::min(options_.connect_timeout, kSessionTimeout));
  auto link = WorkerLink::Open(member.address(), options_.client_name, until);
  if (!link.ok()) {
    return ChooseVerdict({{member.rank(), member.worker(), link.status()}});
  }
  std::shared_ptr<WorkerLink> replaced;  // closed without the lock
  absl::MutexLock lock(&mutex_);
  KnownLink& known = links_[member.worker()];
  replaced = std::exchange(known.link, *link);
  known.incarnation = member.incarnation();
  return *link;
}

absl::StatusOr<std::vector<std::shared_ptr<WorkerLink>>> Cluster::Links(
    const std::vector<v1::GroupMember>& members, absl::Time deadline) {
  std::vector<std::shared_ptr<WorkerLink>> links(members.size());
  ANNULUS_RETURN_IF_ERROR(ForEachInParallel(members.size(), [&](size_t i) -> absl::Status {
    ANNULUS_ASSIGN_OR_RETURN(links[i], Link(members[i], deadline));
    return absl::OkStatus();
  }));
  return links;
}

void Cluster::DropLink(const std::string& worker) {
  std::shared_ptr<WorkerLink> dropped;  // closed without the lock
  absl::MutexLock lock(&mutex_);
  const auto known = links_.find(worker);
  if (known == links_.end()) return;
  dropped = std::move(known->second.link);
  links_.erase(known);
}

void Cluster::ReleaseRegion(uint64_t id) {
  std::vector<std::shared_ptr<WorkerLink>> links;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [worker, known] : links_) links.push_back(known.link);
  }
  for (const auto& link : links) link->leases().Remove(id);
}

}  // namespace annulus::client
