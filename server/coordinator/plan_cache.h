// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "server/ring/plan.h"

namespace annulus::coordinator {

// A plan that was generated and proved. Immutable.
struct CheckedPlan {
  ring::Spec spec;
  std::string digest;
  int steps = 0;
  bool double_ring = false;
  std::shared_ptr<const std::string> json;  // schema annulus.plan.v1, with the digest
};
using SharedPlan = std::shared_ptr<const CheckedPlan>;

// Checked plans by spec and by digest; the least recently used go first. Thread safe; the lock is
// never held while planning, so that a look-up never waits for a plan being made.
class PlanCache {
 public:
  struct Limits {
    size_t plans_max = 256;
    size_t bytes_max = size_t{512} << 20;  // of JSON; the newest plan is kept whatever its size
  };
  struct Counts {
    uint64_t hits = 0;
    uint64_t misses = 0;
    size_t plans = 0;
  };

  explicit PlanCache(const Limits& limits) : limits_(limits) {}

  // Never plans. Counts a hit, or nothing.
  bool Has(const ring::Spec& spec) const;  // counts nothing
  SharedPlan Find(const ring::Spec& spec);
  SharedPlan FindDigest(const std::string& digest);

  // Plans and checks; may take seconds. Counts a miss. INVALID_ARGUMENT: a spec that cannot be
  // planned. INTERNAL: the planner made what the checker refuses. RESOURCE_EXHAUSTED: JSON beyond
  // `json_bytes_max`.
  absl::StatusOr<SharedPlan> Make(const ring::Spec& spec, size_t json_bytes_max);

  Counts counts() const;

 private:
  struct Entry {
    std::string key;
    SharedPlan plan;
  };
  using Order = std::list<Entry>;  // newest use first

  SharedPlan Touch(Order::iterator entry);
  void Insert(const std::string& key, const SharedPlan& plan);
  void DropOldest();

  const Limits limits_;
  mutable std::mutex mutex_;
  Order order_;
  std::unordered_map<std::string, Order::iterator> by_spec_;
  std::unordered_map<std::string, Order::iterator> by_digest_;
  size_t bytes_ = 0;
  uint64_t hits_ = 0;
  uint64_t misses_ = 0;
};

}  // namespace annulus::coordinator
