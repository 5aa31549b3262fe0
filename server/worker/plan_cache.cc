// SPDX-License-Identifier: Apache-2.0
#include "server/worker/plan_cache.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/ring/checker/checker.h"
#include "server/ring/plan_json.h"

namespace annulus::worker {

void PlanCache::SetSource(Source source) {
  std::lock_guard lock(mutex_);
  source_ = std::move(source);
}

absl::StatusOr<std::shared_ptr<const RankProgram>> PlanCache::Get(const std::string& digest,
                                                                  int rank) {
  if (auto program = FindProgram(digest, rank)) return program;
  ANNULUS_ASSIGN_OR_RETURN(std::shared_ptr<const ring::Plan> plan, GetPlan(digest));
  ANNULUS_ASSIGN_OR_RETURN(std::shared_ptr<const RankProgram> program,
                           CompileForRank(std::move(plan), rank));
  std::lock_guard lock(mutex_);
  if (const auto it = entries_.find(digest); it != entries_.end()) {
    it->second.programs.emplace(rank, program);
  }
  return program;
}

std::shared_ptr<const RankProgram> PlanCache::FindProgram(const std::string& digest, int rank) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(digest);
  if (it == entries_.end()) return nullptr;
  used_.splice(used_.begin(), used_, it->second.used);
  const auto program = it->second.programs.find(rank);
  return program == it->second.programs.end() ? nullptr : program->second;
}

absl::StatusOr<std::shared_ptr<const ring::Plan>> PlanCache::GetPlan(const std::string& digest) {
  {
    std::unique_lock lock(mutex_);
    fetched_.wait(lock, [&] { return fetching_.count(digest) == 0; });
    if (const auto it = entries_.find(digest); it != entries_.end()) return it->second.plan;
    fetching_.insert(digest);
  }
  const auto done = absl::MakeCleanup([&] {
    std::lock_guard lock(mutex_);
    fetching_.erase(digest);
    fetched_.notify_all();
  });
  ANNULUS_ASSIGN_OR_RETURN(std::shared_ptr<const ring::Plan> plan, Fetch(digest));
  std::lock_guard lock(mutex_);
  if (entries_.size() >= kPlansMax) {
    entries_.erase(used_.back());
    used_.pop_back();
  }
  used_.push_front(digest);
  entries_[digest] = {plan, {}, used_.begin()};
  return plan;
}

absl::StatusOr<std::shared_ptr<const ring::Plan>> PlanCache::Fetch(const std::string& digest) {
  Source source;
  {
    std::lock_guard lock(mutex_);
    source = source_;
  }
  if (!source) return absl::FailedPreconditionError("this worker has no source of plans");
  ANNULUS_ASSIGN_OR_RETURN(const std::string json, source(digest));
  ANNULUS_ASSIGN_OR_RETURN(ring::Plan plan, ring::ParsePlanJson(json));
  if (plan.digest != digest) {
    return absl::InvalidArgumentError(
        absl::StrCat("asked for plan ", digest, ", got plan ", plan.digest));
  }
  ANNULUS_RETURN_IF_ERROR(ring::CheckPlan(plan));
  return std::make_shared<const ring::Plan>(std::move(plan));
}

}  // namespace annulus::worker
