// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "annulus/v1/coordinator.pb.h"

namespace annulus::client {

// The coordinator's RPCs, blocking, each with a deadline. Thread safe. Errors are the
// coordinator's, with its address in front where it cannot be reached.
class CoordinatorLink {
 public:
  // UNAVAILABLE if nobody answers by the deadline.
  static absl::StatusOr<std::unique_ptr<CoordinatorLink>> Connect(const std::string& address,
                                                                  absl::Time deadline);
  ~CoordinatorLink();

  absl::StatusOr<v1::Group> EnsureGroup(const v1::EnsureGroupRequest& request, absl::Time deadline);
  absl::StatusOr<v1::Group> GetGroup(const std::string& name, absl::Time deadline);
  absl::Status DeleteGroup(const std::string& name, absl::Time deadline);
  absl::StatusOr<v1::ListGroupsResponse> ListGroups(absl::Time deadline);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers(absl::Time deadline);
  absl::StatusOr<v1::PreparePlanResponse> PreparePlan(const v1::PlanSpec& spec,
                                                      absl::Time deadline);

 private:
  struct Stub;
  CoordinatorLink(std::string address, std::unique_ptr<Stub> stub);
  template <typename Request, typename Response, typename Method>
  absl::StatusOr<Response> Call(Method method, const Request& request, absl::Time deadline);

  const std::string address_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace annulus::client
