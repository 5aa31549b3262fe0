// SPDX-License-Identifier: Apache-2.0
#include "client/src/coordinator_link.h"

#include <grpcpp/client_context.h>

#include "absl/strings/str_cat.h"
#include "annulus/v1/coordinator.grpc.pb.h"
#include "client/src/channel.h"
#include "client/src/status_codec.h"
#include "server/base/fault_info.h"

namespace annulus::client {

struct CoordinatorLink::Stub {
  explicit Stub(std::shared_ptr<grpc::Channel> to)
      : channel(std::move(to)), rpc(v1::Coordinator::NewStub(channel)) {}
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::Coordinator::Stub> rpc;
};

absl::StatusOr<std::unique_ptr<CoordinatorLink>> CoordinatorLink::Connect(
    const std::string& address, absl::Time deadline) {
  auto stub = std::make_unique<Stub>(OpenChannel(address));
  if (!WaitUntilConnected(stub->channel.get(), deadline).ok()) {
    return WithFaultInfo(
        absl::UnavailableError(absl::StrCat("no coordinator answers at ", address,
                                            ": check the address and that it is running")),
        {.reason = "COORDINATOR_UNREACHABLE", .metadata = {{"address", address}}});
  }
  return std::unique_ptr<CoordinatorLink>(new CoordinatorLink(address, std::move(stub)));
}

CoordinatorLink::CoordinatorLink(std::string address, std::unique_ptr<Stub> stub)
    : address_(std::move(address)), stub_(std::move(stub)) {}

CoordinatorLink::~CoordinatorLink() = default;

template <typename Request, typename Response, typename Method>
absl::StatusOr<Response> CoordinatorLink::Call(Method method, const Request& request,
                                               absl::Time deadline) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  Response response;
  const grpc::Status status = (stub_->rpc.get()->*method)(&context, request, &response);
  if (status.ok()) return response;
  const absl::Status error = FromGrpcStatus(status);
  if (GetFaultInfo(error) || !absl::IsUnavailable(error)) return error;
  return WithFaultInfo(absl::UnavailableError(absl::StrCat("the coordinator at ", address_,
                                                           " is gone: ", error.message())),
                       {.reason = "COORDINATOR_UNREACHABLE", .metadata = {{"address", address_}}});
}

absl::StatusOr<v1::Group> CoordinatorLink::EnsureGroup(const v1::EnsureGroupRequest& request,
                                                       absl::Time deadline) {
  return Call<v1::EnsureGroupRequest, v1::Group>(&v1::Coordinator::Stub::EnsureGroup, request,
                                                 deadline);
}

absl::StatusOr<v1::Group> CoordinatorLink::GetGroup(const std::string& name, absl::Time deadline) {
  v1::GetGroupRequest request;
  request.set_name(name);
  return Call<v1::GetGroupRequest, v1::Group>(&v1::Coordinator::Stub::GetGroup, request, deadline);
}

absl::Status CoordinatorLink::DeleteGroup(const std::string& name, absl::Time deadline) {
  v1::DeleteGroupRequest request;
  request.set_name(name);
  return Call<v1::DeleteGroupRequest, v1::DeleteGroupResponse>(&v1::Coordinator::Stub::DeleteGroup,
                                                               request, deadline)
      .status();
}

absl::StatusOr<v1::ListGroupsResponse> CoordinatorLink::ListGroups(absl::Time deadline) {
  return Call<v1::ListGroupsRequest, v1::ListGroupsResponse>(&v1::Coordinator::Stub::ListGroups, {},
                                                             deadline);
}

absl::StatusOr<v1::ListWorkersResponse> CoordinatorLink::ListWorkers(absl::Time deadline) {
  return Call<v1::ListWorkersRequest, v1::ListWorkersResponse>(&v1::Coordinator::Stub::ListWorkers,
                                                               {}, deadline);
}

absl::StatusOr<v1::PreparePlanResponse> CoordinatorLink::PreparePlan(const v1::PlanSpec& spec,
                                                                     absl::Time deadline) {
  v1::PreparePlanRequest request;
  *request.mutable_spec() = spec;
  return Call<v1::PreparePlanRequest, v1::PreparePlanResponse>(&v1::Coordinator::Stub::PreparePlan,
                                                               request, deadline);
}

}  // namespace annulus::client
