// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "annulus/types.h"
#include "client/src/cluster.h"
#include "client/src/data_plane.h"
#include "client/src/job.h"

namespace annulus::client {

// Runs a job from what is cached: one RPC per worker in a steady state with shared memory. What
// turns out to be out of date (a group that was formed anew, a worker's new incarnation, a
// forgotten plan) is asked for again and the job repeated, at most twice, since nothing of it had
// run; a fault is returned. Ends by the job's deadline + 1 s. Thread safe.
absl::StatusOr<AttendReport> Execute(Cluster* cluster, StagingPool* pool, const Job& job);

}  // namespace annulus::client
