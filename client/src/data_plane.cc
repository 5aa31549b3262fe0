// SPDX-License-Identifier: Apache-2.0
#include "client/src/data_plane.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/cluster.h"
#include "client/src/proto_convert.h"
#include "client/src/segments.h"
#include "server/base/status_macros.h"

namespace annulus::client {
namespace {

constexpr size_t kFreeRegionsMax = 18;  // two calls of nine operands
constexpr absl::Duration kLeaseTimeout = absl::Seconds(2);
constexpr absl::Duration kCleanupTimeout = absl::Milliseconds(500);

std::string TensorId(const RankCall& call, Role role) {
  return absl::StrCat(call.request.fence().request_id(), ".", RoleName(role));
}

absl::Status NameRank(const RankCall& call, const absl::Status& status) {
  return ChooseVerdict({{call.rank, call.worker, status}});
}

}  // namespace

absl::StatusOr<std::shared_ptr<Region>> StagingPool::Take(size_t bytes) {
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      if ((*it)->size() != bytes) continue;
      std::shared_ptr<Region> region = std::move(*it);
      free_.erase(it);
      return region;
    }
  }
  return registry_->Create(bytes);
}

void StagingPool::Return(std::shared_ptr<Region> region) {
  std::shared_ptr<Region> surplus;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  free_.push_back(std::move(region));
  if (free_.size() <= kFreeRegionsMax) return;
  surplus = std::move(free_.front());
  free_.erase(free_.begin());
}

DataPlane::~DataPlane() {
  for (const RankCall& call : streaming_) DropTensors(call);
  for (Shared& shared : shared_) {
    if (shared.staged) pool_->Return(std::move(shared.region));
  }
}

const ring::TokenRanges& DataPlane::RankTokens(const Operand& operand, int rank) const {
  const ring::RankShard& shard = shards_[static_cast<size_t>(rank)];
  return operand.query_side ? shard.q : shard.kv;
}

absl::Status DataPlane::ShareOperands() {
  if (!shared_.empty()) return absl::OkStatus();
  for (const Operand& operand : job_.operands) {
    const size_t bytes = operand.view.bytes();
    Shared shared;
    shared.region = bytes > 0 ? registry_->Find(operand.view.data, bytes) : nullptr;
    if (shared.region != nullptr && shared.region->spoiled() && operand.written) {
      return absl::FailedPreconditionError(
          absl::StrCat("output ", RoleName(operand.role),
                       " lies in device memory that a worker of "
                       "a call that failed may still write to: allocate and lease other memory"));
    }
    if (shared.region != nullptr) {
      shared.offset =
          static_cast<uint64_t>(static_cast<uint8_t*>(operand.view.data) - shared.region->data());
    } else {
      // An empty shard still needs something to refer to.
      ANNULUS_ASSIGN_OR_RETURN(shared.region, pool_->Take(std::max<size_t>(bytes, 1)));
      shared.staged = true;
      if (!operand.written && bytes > 0) {
        std::memcpy(shared.region->data(), operand.view.data, bytes);
      }
    }
    shared_.push_back(std::move(shared));
  }
  return absl::OkStatus();
}

absl::Status DataPlane::LeaseAll(const RankCall& call, absl::Time deadline) const {
  for (const Shared& shared : shared_) {
    ANNULUS_RETURN_IF_ERROR(call.link->leases().Ensure(
        *shared.region, std::min(deadline, absl::Now() + kLeaseTimeout)));
  }
  return absl::OkStatus();
}

const Operand* DataPlane::DeviceOperand() const {
  for (const Operand& operand : job_.operands) {
    const auto region = registry_->Find(operand.view.data, operand.view.bytes());
    if (region != nullptr && region->device_memory() != nullptr) return &operand;
  }
  return nullptr;
}

absl::Status DataPlane::ChoosePaths(const std::vector<RankCall>& calls, absl::Time deadline) {
  paths_.assign(calls.size(), DataPath::kStream);
  const Operand* device = DeviceOperand();
  if (device != nullptr && job_.options.data_path == DataPath::kStream) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", RoleName(device->role), " lies in device memory, which cannot be streamed"));
  }
  if (job_.options.data_path == DataPath::kStream) return absl::OkStatus();
  bool anywhere = job_.options.data_path == DataPath::kMemfd || device != nullptr;
  for (const RankCall& call : calls) {
    anywhere = anywhere || !call.link->session().region_socket().empty();
  }
  if (!anywhere) return absl::OkStatus();
  ANNULUS_RETURN_IF_ERROR(ShareOperands());
  for (size_t i = 0; i < calls.size(); ++i) {
    // A path that happens to exist here may lead to another host's worker; it does not know our
    // session and refuses, so whether memory is shared is what the lease itself says.
    const absl::Status leased = LeaseAll(calls[i], deadline);
    if (leased.ok()) {
      paths_[i] = DataPath::kMemfd;
    } else if (absl::IsResourceExhausted(leased) || absl::IsUnavailable(leased) ||
               absl::IsDeadlineExceeded(leased)) {
      return NameRank(calls[i], leased);  // another path would not help
    } else if (device != nullptr) {
      return NameRank(calls[i], absl::FailedPreconditionError(
                                    absl::StrCat("tensor ", RoleName(device->role),
                                                 " lies in device memory: ", leased.message())));
    } else if (job_.options.data_path == DataPath::kMemfd) {
      return NameRank(calls[i], absl::FailedPreconditionError(absl::StrCat(
                                    "memory cannot be shared with this worker (", leased.message(),
                                    "): use data path stream or auto")));
    }
  }
  return absl::OkStatus();
}

void DataPlane::ReferToShared(RankCall* call) const {
  for (size_t i = 0; i < job_.operands.size(); ++i) {
    const Operand& operand = job_.operands[i];
    v1::TensorRef* ref = MutableRef(&call->request, operand.role);
    FillRef(operand.view, operand.tokens, ref);
    const Region::Identity identity = shared_[i].region->identity();
    ref->mutable_region()->set_region_id(identity.id);
    ref->mutable_region()->set_generation(identity.generation);
    ref->mutable_region()->set_offset(shared_[i].offset);
  }
}

absl::Status DataPlane::SendRows(RankCall* call, absl::Time deadline) const {
  for (const Operand& operand : job_.operands) {
    const ring::TokenRanges& tokens = RankTokens(operand, call->rank);
    ANNULUS_ASSIGN_OR_RETURN(const SegmentList rows,
                             SegmentsOf(operand.view, operand.tokens, tokens));
    const std::string id = TensorId(*call, operand.role);
    v1::TensorRef* ref = MutableRef(&call->request, operand.role);
    FillRef(operand.view, tokens, ref);
    ref->set_tensor_id(id);
    ANNULUS_RETURN_IF_ERROR(call->link->CreateTensor(id, rows.bytes, deadline));
    if (!operand.written && rows.bytes > 0) {
      ANNULUS_RETURN_IF_ERROR(call->link->Upload(id, rows, deadline));
    }
  }
  return absl::OkStatus();
}

absl::Status DataPlane::FetchRows(const RankCall& call, absl::Time deadline) const {
  for (const Operand& operand : job_.operands) {
    if (!operand.written) continue;
    ANNULUS_ASSIGN_OR_RETURN(const SegmentList rows, SegmentsOf(operand.view, operand.tokens,
                                                                RankTokens(operand, call.rank)));
    ANNULUS_RETURN_IF_ERROR(call.link->Download(TensorId(call, operand.role), rows, deadline));
  }
  return absl::OkStatus();
}

void DataPlane::DropTensors(const RankCall& call) const {
  for (const Operand& operand : job_.operands) {
    // What cannot be dropped goes with the session.
    const absl::Status dropped =
        call.link->DeleteTensor(TensorId(call, operand.role), absl::Now() + kCleanupTimeout);
    if (absl::IsUnavailable(dropped) || absl::IsDeadlineExceeded(dropped)) return;
  }
}

absl::Status DataPlane::Prepare(std::vector<RankCall>* calls, absl::Time deadline) {
  ANNULUS_RETURN_IF_ERROR(ChoosePaths(*calls, deadline));
  for (size_t i = 0; i < calls->size(); ++i) {
    if (paths_[i] == DataPath::kStream) streaming_.push_back((*calls)[i]);
  }
  return ForEachInParallel(calls->size(), [&](size_t i) {
    RankCall* call = &(*calls)[i];
    if (paths_[i] == DataPath::kMemfd) {
      ReferToShared(call);
      return absl::OkStatus();
    }
    return NameRank(*call, SendRows(call, deadline));
  });
}

absl::Status DataPlane::Collect(const std::vector<RankCall>& calls, absl::Time deadline) {
  ANNULUS_RETURN_IF_ERROR(ForEachInParallel(calls.size(), [&](size_t i) {
    if (paths_[i] == DataPath::kMemfd) return absl::OkStatus();
    return NameRank(calls[i], FetchRows(calls[i], deadline));
  }));
  for (size_t o = 0; o < shared_.size(); ++o) {
    const Operand& operand = job_.operands[o];
    if (!operand.written || !shared_[o].staged) continue;
    for (size_t i = 0; i < calls.size(); ++i) {
      if (paths_[i] != DataPath::kMemfd) continue;
      TensorView staged = operand.view;
      staged.data = shared_[o].region->data();
      const ring::TokenRanges& tokens = RankTokens(operand, calls[i].rank);
      ANNULUS_ASSIGN_OR_RETURN(const SegmentList from, SegmentsOf(staged, operand.tokens, tokens));
      ANNULUS_ASSIGN_OR_RETURN(const SegmentList to,
                               SegmentsOf(operand.view, operand.tokens, tokens));
      for (size_t s = 0; s < to.segments.size(); ++s) {
        std::memcpy(to.segments[s].data, from.segments[s].data, to.segments[s].bytes);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status DataPlane::Isolate() {
  for (size_t o = 0; o < shared_.size(); ++o) {
    if (!job_.operands[o].written) continue;
    if (shared_[o].staged) {
      shared_[o].staged = false;  // not to be used again
      shared_[o].region.reset();
      continue;
    }
    ANNULUS_RETURN_IF_ERROR(shared_[o].region->Rehome());
  }
  return absl::OkStatus();
}

}  // namespace annulus::client
