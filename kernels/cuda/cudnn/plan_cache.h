// SPDX-License-Identifier: Apache-2.0
#pragma once

// The plans of the shapes that were used last. Not thread safe.

#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/cuda/cudnn/cudnn_api.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {

class PlanCache {
 public:
  // A ring uses a handful; a plan is megabytes of a kernel's code.
  static constexpr size_t kPlansMax = 64;

  explicit PlanCache(CudnnApi* api) : api_(api) {}

  // Builds the plan when it is not there, in the place of the one that was not used for longest.
  // It is valid until the next call. Failures of Build are not kept.
  absl::StatusOr<AttentionPlan*> Get(const AttentionShape& shape) {
    const auto found = index_.find(shape);
    if (found != index_.end()) {
      plans_.splice(plans_.begin(), plans_, found->second);
      return found->second->second.get();
    }
    ANNULUS_ASSIGN_OR_RETURN(std::unique_ptr<AttentionPlan> plan, api_->Build(shape));
    if (plans_.size() == kPlansMax) {
      index_.erase(plans_.back().first);
      plans_.pop_back();
    }
    plans_.emplace_front(shape, std::move(plan));
    index_[shape] = plans_.begin();
    return plans_.front().second.get();
  }

 private:
  using Plans = std::list<std::pair<AttentionShape, std::unique_ptr<AttentionPlan>>>;

  CudnnApi* const api_;
  Plans plans_;  // last used first
  std::map<AttentionShape, Plans::iterator> index_;
};

}  // namespace annulus::kernels::cuda
