// SPDX-License-Identifier: Apache-2.0
#include "annulus/rank_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/execute.h"
#include "client/src/proto_convert.h"
#include "client/src/request_id.h"
#include "client/src/tensor_factory.h"
#include "server/base/status_macros.h"
#include "server/ring/partition.h"

namespace annulus::client {
namespace {

int64_t Rows(const std::vector<TokenRange>& ranges) {
  int64_t rows = 0;
  for (const TokenRange& range : ranges) rows += range.count();
  return rows;
}

std::vector<TokenRange> FromRing(const ring::TokenRanges& ranges) {
  std::vector<TokenRange> out;
  for (const ring::TokenRange& range : ranges)
    out.push_back({range.begin, range.end, range.stride});
  return out;
}

absl::StatusOr<int> RankOf(const v1::Group& group, const RankClientOptions& options) {
  std::string members;
  for (const v1::GroupMember& member : group.members()) {
    if (!options.worker.empty() && member.worker() == options.worker) return member.rank();
    if (!options.worker_address.empty() && member.address() == options.worker_address) {
      return member.rank();
    }
    absl::StrAppend(&members, members.empty() ? "" : ", ", member.worker(), " at ",
                    member.address());
  }
  return absl::FailedPreconditionError(
      absl::StrCat("worker \"", options.worker.empty() ? options.worker_address : options.worker,
                   "\" is not in group \"", group.name(), "\", whose members are: ", members));
}

}  // namespace

int64_t RankShard::q_rows() const { return Rows(q); }
int64_t RankShard::kv_rows() const { return Rows(kv); }

class RankClient::Impl {
 public:
  Impl(const RankClientOptions& options, std::unique_ptr<Cluster> cluster, const v1::Group& group,
       int rank)
      : options_(options),
        cluster_(std::move(cluster)),
        pool_(&cluster_->regions()),
        epoch_(group.epoch()),
        rank_(rank) {}

  Job NewJob(const TensorView& q, int64_t query_length, const TensorView& k, int64_t kv_length,
             const AttendOptions& options, ring::Direction direction) {
    Job job;
    job.group = options_.group.name;
    job.options = options;
    job.spec.direction = direction;
    job.spec.query_length = query_length;
    job.spec.kv_length = kv_length;
    job.spec.mask = ToRing(options.mask);
    job.spec.layout = ToRing(options.layout);
    job.batch = q.batch;
    job.query_heads = q.heads;
    job.kv_heads = k.heads;
    job.head_dim = q.head_dim;
    job.dtype = q.dtype;
    job.request_id = [this](uint64_t epoch) {
      return CollectiveRequestId(options_.group.name, options_.job_id, epoch, next_collective);
    };
    return job;
  }

  void AddOperand(Job* job, Role role, const TensorView& view, bool query_side, bool written) {
    const auto lengths = query_side ? job->spec.query_length : job->spec.kv_length;
    const auto parts = ring::Partition(job->spec.layout, lengths, options_.group.size);
    job->operands.push_back({role, view, query_side, written, parts[static_cast<size_t>(rank_)]});
  }

  absl::Status CheckLengths(int64_t query_length, int64_t kv_length) const {
    if (query_length >= 1 && kv_length >= 1) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("query length ", query_length, " and KV length ",
                                                   kv_length, ": expected at least 1"));
  }

  absl::StatusOr<AttendReport> Run(Job job, const client::RankShard& shard) {
    ANNULUS_RETURN_IF_ERROR(CheckJob(job, shard.q_rows(), shard.kv_rows()));
    ANNULUS_RETURN_IF_ERROR(RefreshRank(job.options.deadline));
    job.only_rank = rank_;
    ANNULUS_ASSIGN_OR_RETURN(AttendReport report, Execute(cluster_.get(), &pool_, job));
    epoch_ = report.epoch;
    ++next_collective;
    return report;
  }

  Cluster& cluster() { return *cluster_; }
  const RankClientOptions& options() const { return options_; }
  int rank() const { return rank_; }
  uint64_t epoch() const { return epoch_; }
  uint64_t next_collective = 0;

 private:
  // A group formed anew must seat our worker where it was: our memory holds that rank's tokens.
  absl::Status RefreshRank(absl::Duration timeout) {
    ANNULUS_ASSIGN_OR_RETURN(const v1::Group group,
                             cluster_->FindGroup(options_.group.name, absl::Now() + timeout));
    ANNULUS_ASSIGN_OR_RETURN(const int rank, RankOf(group, options_));
    if (rank == rank_) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "group \"", group.name(), "\" was formed anew and seats this worker as rank ", rank,
        " instead of ", rank_, ": attach again and hand over that rank's tokens"));
  }

  const RankClientOptions options_;
  const std::unique_ptr<Cluster> cluster_;
  StagingPool pool_;
  uint64_t epoch_;
  const int rank_;
};

absl::StatusOr<std::unique_ptr<RankClient>> RankClient::Attach(const RankClientOptions& options) {
  if (options.worker.empty() == options.worker_address.empty()) {
    return absl::InvalidArgumentError("name the worker beside this process by name or by address");
  }
  ANNULUS_ASSIGN_OR_RETURN(std::unique_ptr<Cluster> cluster,
                           Cluster::Connect({options.coordinator, options.name,
                                             options.connect_timeout, options.group_timeout}));
  ANNULUS_ASSIGN_OR_RETURN(
      const v1::Group group,
      cluster->EnsureGroup(options.group, absl::Now() + options.group_timeout));
  ANNULUS_ASSIGN_OR_RETURN(const int rank, RankOf(group, options));
  return std::unique_ptr<RankClient>(
      new RankClient(std::make_unique<Impl>(options, std::move(cluster), group, rank)));
}

RankClient::RankClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RankClient::~RankClient() = default;

int RankClient::rank() const { return impl_->rank(); }
int RankClient::size() const { return impl_->options().group.size; }
uint64_t RankClient::epoch() const { return impl_->epoch(); }
uint64_t RankClient::next_collective() const { return impl_->next_collective; }
void RankClient::set_next_collective(uint64_t number) { impl_->next_collective = number; }

absl::StatusOr<RankShard> RankClient::Shard(Layout layout, int64_t query_length,
                                            int64_t kv_length) const {
  ANNULUS_RETURN_IF_ERROR(impl_->CheckLengths(query_length, kv_length));
  const auto own = static_cast<size_t>(rank());
  RankShard shard;
  shard.q = FromRing(ring::Partition(ToRing(layout), query_length, size())[own]);
  shard.kv = FromRing(ring::Partition(ToRing(layout), kv_length, size())[own]);
  return shard;
}

absl::StatusOr<Tensor> RankClient::AllocateTensor(DataType dtype, int64_t batch, int64_t rows,
                                                  int32_t heads, int32_t head_dim) {
  return NewTensor(&impl_->cluster().regions(), {nullptr, dtype, batch, rows, heads, head_dim});
}

absl::StatusOr<DeviceRegion> RankClient::LeaseDeviceMemory(void* data, size_t bytes,
                                                           const DeviceMemoryHandle& handle) {
  ANNULUS_ASSIGN_OR_RETURN(auto region, impl_->cluster().regions().Adopt(data, bytes, handle));
  return DeviceRegion(std::move(region));
}

absl::StatusOr<AttendReport> RankClient::Attend(const RankAttendCall& call,
                                                const AttendOptions& options) {
  ANNULUS_ASSIGN_OR_RETURN(const RankShard shard,
                           Shard(options.layout, call.query_length, call.kv_length));
  Job job = impl_->NewJob(call.q, call.query_length, call.k, call.kv_length, options,
                          ring::Direction::kForward);
  job.spec.keep_resident = options.retain;
  impl_->AddOperand(&job, Role::kQ, call.q, true, false);
  impl_->AddOperand(&job, Role::kK, call.k, false, false);
  impl_->AddOperand(&job, Role::kV, call.v, false, false);
  impl_->AddOperand(&job, Role::kO, call.o, true, true);
  impl_->AddOperand(&job, Role::kLse, call.lse, true, true);
  return impl_->Run(std::move(job), shard);
}

absl::StatusOr<AttendReport> RankClient::AttendBackward(const RankAttendBackwardCall& call,
                                                        const AttendOptions& options) {
  ANNULUS_ASSIGN_OR_RETURN(const RankShard shard,
                           Shard(options.layout, call.query_length, call.kv_length));
  Job job = impl_->NewJob(call.q, call.query_length, call.k, call.kv_length, options,
                          ring::Direction::kBackward);
  job.spec.keep_resident = !call.forward_request_id.empty();
  job.forward_request_id = call.forward_request_id;
  impl_->AddOperand(&job, Role::kQ, call.q, true, false);
  impl_->AddOperand(&job, Role::kK, call.k, false, false);
  impl_->AddOperand(&job, Role::kV, call.v, false, false);
  impl_->AddOperand(&job, Role::kO, call.o, true, false);
  impl_->AddOperand(&job, Role::kLse, call.lse, true, false);
  impl_->AddOperand(&job, Role::kDo, call.d_o, true, false);
  impl_->AddOperand(&job, Role::kDq, call.dq, true, true);
  impl_->AddOperand(&job, Role::kDk, call.dk, false, true);
  impl_->AddOperand(&job, Role::kDv, call.dv, false, true);
  return impl_->Run(std::move(job), shard);
}

absl::Status RankClient::ReleaseRetained(const std::string& request_id) {
  const absl::Time deadline = absl::Now() + impl_->options().group_timeout;
  ANNULUS_ASSIGN_OR_RETURN(const v1::Group group,
                           impl_->cluster().FindGroup(impl_->options().group.name, deadline));
  for (const v1::GroupMember& member : group.members()) {
    if (member.rank() != rank()) continue;
    ANNULUS_ASSIGN_OR_RETURN(const auto link, impl_->cluster().Link(member, deadline));
    return link->ReleaseRetained(request_id, deadline);
  }
  return absl::OkStatus();
}

}  // namespace annulus::client
