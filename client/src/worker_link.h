// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "annulus/v1/worker.pb.h"
#include "client/src/region_lease.h"
#include "client/src/segments.h"

namespace annulus::client {

// One call of Worker.Attend in flight.
class PendingAttend {
 public:
  virtual ~PendingAttend() = default;
  // Ends the call soon with CANCELLED, unless it has ended. Any thread, any number of times.
  virtual void Cancel() = 0;
};

// A session on one worker: the lease under which it holds regions, tensors and retained KV for us.
// Destroying the link ends the session. Thread safe.
class WorkerLink {
 public:
  // Connects and opens the session. UNAVAILABLE if the worker does not answer by the deadline.
  static absl::StatusOr<std::shared_ptr<WorkerLink>> Open(const std::string& address,
                                                          const std::string& client_name,
                                                          absl::Time deadline);
  ~WorkerLink();
  WorkerLink(const WorkerLink&) = delete;
  WorkerLink& operator=(const WorkerLink&) = delete;

  const v1::SessionOpened& session() const;
  // False once the worker or the connection ended the session.
  bool alive() const;
  RegionLeases& leases();

  // `done` runs once, on a thread of gRPC's, with the answer; `request` is sent before this
  // returns.
  using Done = std::function<void(const absl::Status&, v1::AttendResponse&)>;
  std::shared_ptr<PendingAttend> StartAttend(const v1::AttendRequest& request, absl::Time deadline,
                                             Done done);

  // Tensors held by the worker. Upload and Download resume a broken stream where it stood.
  absl::Status CreateTensor(const std::string& tensor_id, uint64_t bytes, absl::Time deadline);
  absl::Status Upload(const std::string& tensor_id, const SegmentList& from, absl::Time deadline);
  absl::Status Download(const std::string& tensor_id, const SegmentList& to, absl::Time deadline);
  absl::Status DeleteTensor(const std::string& tensor_id, absl::Time deadline);
  absl::Status ReleaseRetained(const std::string& request_id, absl::Time deadline);

 private:
  struct State;
  explicit WorkerLink(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace annulus::client
