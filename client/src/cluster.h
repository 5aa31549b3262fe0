// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "annulus/types.h"
#include "annulus/v1/coordinator.pb.h"
#include "client/src/coordinator_link.h"
#include "client/src/region.h"
#include "client/src/worker_link.h"
#include "server/ring/plan.h"

namespace annulus::client {

struct ClusterOptions {
  std::string coordinator;
  std::string client_name;
  absl::Duration connect_timeout;
  absl::Duration group_timeout;
};

struct PreparedPlan {
  std::string digest;
  int steps = 0;
};

// What a client knows of the service: groups, plans, sessions on workers, and its own shared
// memory. All of it is cached, so that a steady state asks nobody; failures invalidate. Thread
// safe.
class Cluster {
 public:
  static absl::StatusOr<std::unique_ptr<Cluster>> Connect(const ClusterOptions& options);
  ~Cluster();

  // The group, ready, creating it if need be; from the cache when the options are those of before.
  absl::StatusOr<v1::Group> EnsureGroup(const GroupOptions& options, absl::Time deadline);
  // A group ensured before; asks for its next epoch if the last one ended. NOT_FOUND otherwise.
  absl::StatusOr<v1::Group> FindGroup(const std::string& name, absl::Time deadline);
  absl::Status DeleteGroup(const std::string& name, absl::Time deadline);
  // `status`, or the coordinator's word on who ended the epoch if it comes within a second: for a
  // failure that only says that a worker cannot be reached.
  absl::Status Explain(const absl::Status& status, const std::string& group, uint64_t epoch);
  // What was known of the group no longer holds. `epoch_over`: wait for a later epoch than this.
  void InvalidateGroup(const std::string& name, uint64_t epoch, bool epoch_over);

  absl::StatusOr<PreparedPlan> Plan(const ring::Spec& spec, absl::Time deadline);
  void ForgetPlans();

  // The session on a member, opened if need be. Failures name rank and worker.
  absl::StatusOr<std::shared_ptr<WorkerLink>> Link(const v1::GroupMember& member,
                                                   absl::Time deadline);
  // All members' sessions, opened side by side; in the order of `members`.
  absl::StatusOr<std::vector<std::shared_ptr<WorkerLink>>> Links(
      const std::vector<v1::GroupMember>& members, absl::Time deadline);
  void DropLink(const std::string& worker);

  RegionRegistry& regions() { return *regions_; }
  const ClusterOptions& options() const { return options_; }

 private:
  explicit Cluster(const ClusterOptions& options);
  absl::StatusOr<v1::Group> Refresh(const std::string& name, absl::Time deadline);
  void ReleaseRegion(uint64_t id);

  struct KnownGroup {
    v1::EnsureGroupRequest request;
    v1::Group group;
    bool fresh = false;
    uint64_t ended_epoch = 0;
  };
  struct KnownLink {
    uint64_t incarnation = 0;
    std::shared_ptr<WorkerLink> link;
  };

  const ClusterOptions options_;
  std::unique_ptr<CoordinatorLink> coordinator_;
  std::shared_ptr<RegionRegistry> regions_;
  // Tells regions that outlive us that there is nobody to release them any more.
  std::shared_ptr<std::pair<absl::Mutex, Cluster*>> self_;
  absl::Mutex mutex_;
  std::map<std::string, KnownGroup> groups_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, PreparedPlan> plans_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, KnownLink> links_ ABSL_GUARDED_BY(mutex_);
};

// Runs `work(i)` for i in [0, count) on at most 8 threads and returns the first failure in order.
absl::Status ForEachInParallel(size_t count, const std::function<absl::Status(size_t)>& work);

}  // namespace annulus::client
