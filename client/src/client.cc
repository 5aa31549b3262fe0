// SPDX-License-Identifier: Apache-2.0
#include "annulus/client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/execute.h"
#include "client/src/proto_convert.h"
#include "client/src/request_id.h"
#include "client/src/tensor_factory.h"
#include "client/src/verdict.h"
#include "server/base/status_macros.h"

namespace annulus::client {
namespace {

// A whole sequence, token i in row i.
Operand Whole(Role role, const TensorView& view, bool query_side, bool written) {
  return {role, view, query_side, written, {{0, view.rows, 1}}};
}

Job NewJob(const std::string& group, const TensorView& q, const TensorView& k,
           const AttendOptions& options, ring::Direction direction) {
  Job job;
  job.group = group;
  job.options = options;
  job.spec.direction = direction;
  job.spec.query_length = q.rows;
  job.spec.kv_length = k.rows;
  job.spec.mask = ToRing(options.mask);
  job.spec.layout = ToRing(options.layout);
  job.batch = q.batch;
  job.query_heads = q.heads;
  job.kv_heads = k.heads;
  job.head_dim = q.head_dim;
  job.dtype = q.dtype;
  job.request_id = [](uint64_t) { return NewRequestId(); };
  return job;
}

absl::Status CheckLengths(const Job& job) {
  if (job.spec.query_length >= 1 && job.spec.kv_length >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("query length ", job.spec.query_length,
                                                 " and KV length ", job.spec.kv_length,
                                                 ": expected at least 1"));
}

}  // namespace

class Client::Impl {
 public:
  explicit Impl(std::unique_ptr<Cluster> cluster)
      : cluster_(std::move(cluster)), pool_(&cluster_->regions()) {}

  Cluster& cluster() { return *cluster_; }

  absl::StatusOr<AttendReport> Run(const Job& job) {
    ANNULUS_RETURN_IF_ERROR(CheckLengths(job));
    ANNULUS_RETURN_IF_ERROR(CheckJob(job, job.spec.query_length, job.spec.kv_length));
    return Execute(cluster_.get(), &pool_, job);
  }
  absl::Time GroupDeadline() const { return absl::Now() + cluster_->options().group_timeout; }

 private:
  const std::unique_ptr<Cluster> cluster_;
  StagingPool pool_;
};

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const ClientOptions& options) {
  ANNULUS_ASSIGN_OR_RETURN(std::unique_ptr<Cluster> cluster,
                           Cluster::Connect({options.coordinator, options.name,
                                             options.connect_timeout, options.group_timeout}));
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(std::move(cluster))));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<GroupInfo> Client::EnsureGroup(const GroupOptions& options) {
  ANNULUS_ASSIGN_OR_RETURN(const v1::Group group,
                           impl_->cluster().EnsureGroup(options, impl_->GroupDeadline()));
  return FromProto(group);
}

absl::Status Client::DeleteGroup(const std::string& name) {
  return impl_->cluster().DeleteGroup(name, impl_->GroupDeadline());
}

absl::StatusOr<Tensor> Client::AllocateTensor(DataType dtype, int64_t batch, int64_t rows,
                                              int32_t heads, int32_t head_dim) {
  return NewTensor(&impl_->cluster().regions(), {nullptr, dtype, batch, rows, heads, head_dim});
}

absl::StatusOr<AttendReport> Client::Attend(const AttendCall& call, const AttendOptions& options) {
  Job job = NewJob(call.group, call.q, call.k, options, ring::Direction::kForward);
  job.spec.keep_resident = options.retain;
  job.operands = {Whole(Role::kQ, call.q, true, false), Whole(Role::kK, call.k, false, false),
                  Whole(Role::kV, call.v, false, false), Whole(Role::kO, call.o, true, true),
                  Whole(Role::kLse, call.lse, true, true)};
  return impl_->Run(job);
}

absl::StatusOr<AttendReport> Client::AttendBackward(const AttendBackwardCall& call,
                                                    const AttendOptions& options) {
  Job job = NewJob(call.group, call.q, call.k, options, ring::Direction::kBackward);
  job.spec.keep_resident = !call.forward_request_id.empty();
  job.forward_request_id = call.forward_request_id;
  job.operands = {Whole(Role::kQ, call.q, true, false),     Whole(Role::kK, call.k, false, false),
                  Whole(Role::kV, call.v, false, false),    Whole(Role::kO, call.o, true, false),
                  Whole(Role::kLse, call.lse, true, false), Whole(Role::kDo, call.d_o, true, false),
                  Whole(Role::kDq, call.dq, true, true),    Whole(Role::kDk, call.dk, false, true),
                  Whole(Role::kDv, call.dv, false, true)};
  return impl_->Run(job);
}

absl::Status Client::ReleaseRetained(const std::string& group, const std::string& request_id) {
  const absl::Time deadline = impl_->GroupDeadline();
  ANNULUS_ASSIGN_OR_RETURN(const v1::Group known, impl_->cluster().FindGroup(group, deadline));
  const std::vector<v1::GroupMember> members(known.members().begin(), known.members().end());
  ANNULUS_ASSIGN_OR_RETURN(const auto links, impl_->cluster().Links(members, deadline));
  return ForEachInParallel(
      links.size(), [&](size_t i) { return links[i]->ReleaseRetained(request_id, deadline); });
}

}  // namespace annulus::client
