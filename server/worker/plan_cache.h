// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "server/ring/plan.h"
#include "server/worker/rank_program.h"

namespace annulus::worker {

// Checked plans by digest, and the programs compiled from them: each is fetched, parsed, checked
// and compiled once, however many requests ask at the same time. Keeps the kPlansMax used last.
// Thread safe.
class PlanCache {
 public:
  static constexpr size_t kPlansMax = 64;
  // The plan's JSON by digest; may block.
  using Source = std::function<absl::StatusOr<std::string>(const std::string& digest)>;

  void SetSource(Source source);

  // The rank's program. Errors of the source; INVALID_ARGUMENT for a plan that does not parse,
  // has another digest, fails the checker or cannot be compiled. Errors are not kept.
  absl::StatusOr<std::shared_ptr<const RankProgram>> Get(const std::string& digest, int rank);

 private:
  struct Entry {
    std::shared_ptr<const ring::Plan> plan;
    std::map<int, std::shared_ptr<const RankProgram>> programs;  // by rank
    std::list<std::string>::iterator used;
  };
  absl::StatusOr<std::shared_ptr<const ring::Plan>> Fetch(const std::string& digest);
  absl::StatusOr<std::shared_ptr<const ring::Plan>> GetPlan(const std::string& digest);
  std::shared_ptr<const RankProgram> FindProgram(const std::string& digest, int rank);

  std::mutex mutex_;
  std::condition_variable fetched_;
  Source source_;                         // guarded by mutex_
  std::map<std::string, Entry> entries_;  // guarded by mutex_
  std::list<std::string> used_;           // guarded by mutex_; most recent first
  std::set<std::string> fetching_;        // guarded by mutex_
};

}  // namespace annulus::worker
