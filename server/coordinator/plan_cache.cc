// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/plan_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/ring/checker/checker.h"
#include "server/ring/plan_json.h"
#include "server/ring/planner.h"

namespace annulus::coordinator {
namespace {

// Equal for specs that ask for the same: a window of 0 stands for N.
std::string KeyOf(const ring::Spec& spec) {
  const int window = spec.window_size == 0 ? spec.context_parallel_size : spec.window_size;
  return absl::StrCat(static_cast<int>(spec.direction), "/", spec.query_length, "/", spec.kv_length,
                      "/", spec.context_parallel_size, "/", window, "/",
                      static_cast<int>(spec.mask.kind), "/", spec.mask.window_left, "/",
                      static_cast<int>(spec.layout), "/", spec.keep_resident);
}

absl::StatusOr<SharedPlan> PlanAndCheck(const ring::Spec& spec, size_t json_bytes_max) {
  ANNULUS_ASSIGN_OR_RETURN(const ring::Plan plan, ring::MakePlan(spec));
  if (const absl::Status checked = ring::CheckPlan(plan); !checked.ok()) {
    return absl::InternalError(
        absl::StrCat("the planner made a plan that the checker refuses: ", checked.message()));
  }
  auto json = std::make_shared<const std::string>(ring::PlanToJson(plan));
  if (json->size() > json_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("plan of ", json->size(), " bytes: expected at most ", json_bytes_max));
  }
  return std::make_shared<const CheckedPlan>(
      CheckedPlan{.spec = spec,
                  .digest = plan.digest,
                  .steps = plan.steps,
                  .double_ring = plan.algorithm == ring::Algorithm::kDoubleRing,
                  .json = std::move(json)});
}

}  // namespace

SharedPlan PlanCache::Touch(Order::iterator entry) {
  order_.splice(order_.begin(), order_, entry);
  return entry->plan;
}

bool PlanCache::Has(const ring::Spec& spec) const {
  const std::lock_guard lock(mutex_);
  return by_spec_.count(KeyOf(spec)) != 0;
}

SharedPlan PlanCache::Find(const ring::Spec& spec) {
  const std::string key = KeyOf(spec);
  const std::lock_guard lock(mutex_);
  const auto found = by_spec_.find(key);
  if (found == by_spec_.end()) return nullptr;
  ++hits_;
  return Touch(found->second);
}

SharedPlan PlanCache::FindDigest(const std::string& digest) {
  const std::lock_guard lock(mutex_);
  const auto found = by_digest_.find(digest);
  return found == by_digest_.end() ? nullptr : Touch(found->second);
}

absl::StatusOr<SharedPlan> PlanCache::Make(const ring::Spec& spec, size_t json_bytes_max) {
  {
    const std::lock_guard lock(mutex_);
    ++misses_;
  }
  ANNULUS_ASSIGN_OR_RETURN(SharedPlan plan, PlanAndCheck(spec, json_bytes_max));
  Insert(KeyOf(spec), plan);
  return plan;
}

void PlanCache::Insert(const std::string& key, const SharedPlan& plan) {
  const std::lock_guard lock(mutex_);
  // Another thread may have made it meanwhile, and two specs may share a plan.
  if (by_spec_.count(key) != 0) return;
  order_.push_front({key, plan});
  by_spec_[key] = order_.begin();
  by_digest_[plan->digest] = order_.begin();
  bytes_ += plan->json->size();
  while (order_.size() > 1 && (order_.size() > limits_.plans_max || bytes_ > limits_.bytes_max)) {
    DropOldest();
  }
}

void PlanCache::DropOldest() {
  const Entry oldest = order_.back();
  const bool named = by_digest_.at(oldest.plan->digest) == std::prev(order_.end());
  bytes_ -= oldest.plan->json->size();
  by_spec_.erase(oldest.key);
  order_.pop_back();
  if (!named) return;
  by_digest_.erase(oldest.plan->digest);
  const auto twin = std::find_if(order_.begin(), order_.end(), [&](const Entry& entry) {
    return entry.plan->digest == oldest.plan->digest;
  });
  if (twin != order_.end()) by_digest_[twin->plan->digest] = twin;
}

PlanCache::Counts PlanCache::counts() const {
  const std::lock_guard lock(mutex_);
  return {hits_, misses_, order_.size()};
}

}  // namespace annulus::coordinator
