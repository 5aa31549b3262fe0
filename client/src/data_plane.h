// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/src/fan_out.h"
#include "client/src/job.h"
#include "client/src/region.h"

namespace annulus::client {

// Regions kept for plain memory of the caller, so that a steady state leases nothing anew. Thread
// safe.
class StagingPool {
 public:
  explicit StagingPool(RegionRegistry* registry) : registry_(registry) {}
  // A region of exactly `bytes`, its contents unspecified.
  absl::StatusOr<std::shared_ptr<Region>> Take(size_t bytes);
  void Return(std::shared_ptr<Region> region);

 private:
  RegionRegistry* const registry_;
  absl::Mutex mutex_;
  std::vector<std::shared_ptr<Region>> free_ ABSL_GUARDED_BY(mutex_);
};

// Brings the operands of one attempt of a job within reach of its workers and the results back.
// Per worker: shared memory used in place where it can be leased, else streams of the rank's own
// rows. Not thread safe; used for one attempt.
class DataPlane {
 public:
  // `shards`: what each rank of the group owns. All outlive this.
  DataPlane(const Job& job, const std::vector<ring::RankShard>& shards, RegionRegistry* registry,
            StagingPool* pool)
      : job_(job), shards_(shards), registry_(registry), pool_(pool) {}
  ~DataPlane();

  // Chooses the path per call, moves the inputs and fills the calls' tensor references.
  // UNAVAILABLE with rank and worker if a worker cannot be reached; a path that was asked for and
  // cannot be had is FAILED_PRECONDITION.
  absl::Status Prepare(std::vector<RankCall>* calls, absl::Time deadline);
  // After a success: brings the outputs to the caller's memory.
  absl::Status Collect(const std::vector<RankCall>& calls, absl::Time deadline);
  // After a failure some workers of which may still be writing: takes the outputs out of reach.
  absl::Status Isolate();

  DataPath path(size_t call) const { return paths_[call]; }

 private:
  // Shared memory for one operand: the caller's own or a staging copy.
  struct Shared {
    std::shared_ptr<Region> region;
    uint64_t offset = 0;
    bool staged = false;
  };

  absl::Status ChoosePaths(const std::vector<RankCall>& calls, absl::Time deadline);
  absl::Status ShareOperands();
  // The operand that lies in device memory, which nobody can stream; null if none does.
  const Operand* DeviceOperand() const;
  absl::Status LeaseAll(const RankCall& call, absl::Time deadline) const;
  void ReferToShared(RankCall* call) const;
  absl::Status SendRows(RankCall* call, absl::Time deadline) const;
  absl::Status FetchRows(const RankCall& call, absl::Time deadline) const;
  void DropTensors(const RankCall& call) const;
  const ring::TokenRanges& RankTokens(const Operand& operand, int rank) const;

  const Job& job_;
  const std::vector<ring::RankShard>& shards_;
  RegionRegistry* const registry_;
  StagingPool* const pool_;
  std::vector<Shared> shared_;  // per operand; empty until some call needs it
  std::vector<DataPath> paths_;
  std::vector<RankCall> streaming_;  // calls whose tensors are to be dropped at the end
};

}  // namespace annulus::client
