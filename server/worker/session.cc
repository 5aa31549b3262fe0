// SPDX-License-Identifier: Apache-2.0
#include "server/worker/session.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"

namespace annulus::worker {
namespace {

absl::Status TooMany(const char* what, size_t limit) {
  return WithFaultInfo(
      absl::ResourceExhaustedError(absl::StrCat("the session has ", limit, " ", what, " already")),
      {"TOO_MANY", {{"limit", absl::StrCat(limit)}}});
}

absl::Status Gone(const char* reason, const std::string& message) {
  return WithFaultInfo(absl::NotFoundError(message), {reason, {}});
}

}  // namespace

absl::Status Session::AddRegion(uint64_t region_id, std::shared_ptr<const Region> region) {
  std::shared_ptr<const Region> replaced;  // unmapped outside the lock
  std::lock_guard lock(mutex_);
  const auto it = regions_.find(region_id);
  if (it == regions_.end()) {
    if (regions_.size() >= kRegionsMax) return TooMany("regions", kRegionsMax);
    regions_.emplace(region_id, std::move(region));
    return absl::OkStatus();
  }
  if (region->generation() <= it->second->generation()) {
    return absl::AlreadyExistsError(absl::StrCat("region ", region_id, " is at generation ",
                                                 it->second->generation(), ", got generation ",
                                                 region->generation()));
  }
  replaced = std::exchange(it->second, std::move(region));
  return absl::OkStatus();
}

absl::Status Session::RemoveRegion(uint64_t region_id) {
  std::shared_ptr<const Region> removed;  // unmapped outside the lock
  std::lock_guard lock(mutex_);
  const auto it = regions_.find(region_id);
  if (it == regions_.end()) {
    return Gone("REGION_GONE", absl::StrCat("the session has no region ", region_id));
  }
  removed = std::move(it->second);
  regions_.erase(it);
  return absl::OkStatus();
}

absl::Status Session::CreateTensor(MemoryPool* pool, const std::string& tensor_id, uint64_t bytes) {
  const auto known = [&]() -> std::shared_ptr<HeldTensor> {
    const auto it = tensors_.find(tensor_id);
    return it == tensors_.end() ? nullptr : it->second;
  };
  const auto check = [&](const HeldTensor& tensor) {
    if (tensor.bytes() == bytes) return absl::OkStatus();
    return absl::AlreadyExistsError(
        absl::StrCat("tensor ", tensor_id, " exists with ", tensor.bytes(), " bytes, got ", bytes));
  };
  {
    std::lock_guard lock(mutex_);
    if (const auto tensor = known()) return check(*tensor);
    if (tensors_.size() >= kTensorsMax) return TooMany("tensors", kTensorsMax);
  }
  ANNULUS_ASSIGN_OR_RETURN(std::shared_ptr<HeldTensor> made, HeldTensor::Create(pool, bytes));
  std::lock_guard lock(mutex_);
  if (const auto tensor = known()) return check(*tensor);
  tensors_.emplace(tensor_id, std::move(made));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<HeldTensor>> Session::FindTensor(
    const std::string& tensor_id) const {
  std::lock_guard lock(mutex_);
  const auto it = tensors_.find(tensor_id);
  if (it == tensors_.end()) {
    return Gone("TENSOR_GONE", absl::StrCat("the session has no tensor \"", tensor_id, "\""));
  }
  return it->second;
}

absl::Status Session::DeleteTensor(const std::string& tensor_id) {
  std::shared_ptr<HeldTensor> removed;  // freed outside the lock
  std::lock_guard lock(mutex_);
  const auto it = tensors_.find(tensor_id);
  if (it == tensors_.end()) {
    return Gone("TENSOR_GONE", absl::StrCat("the session has no tensor \"", tensor_id, "\""));
  }
  removed = std::move(it->second);
  tensors_.erase(it);
  return absl::OkStatus();
}

absl::StatusOr<ResolvedTensor> Session::Resolve(const TensorRef& ref, const TensorShape& shape,
                                                Use use) const {
  ResolvedTensor resolved;
  if (!ref.region) {
    ANNULUS_ASSIGN_OR_RETURN(resolved.held, FindTensor(ref.tensor_id));
    ANNULUS_ASSIGN_OR_RETURN(resolved.ref, CheckTensorRef(ref, shape, 0, resolved.held->bytes()));
    if (use == Use::kInput && resolved.held->committed_bytes() < resolved.held->bytes()) {
      return WithFaultInfo(
          absl::FailedPreconditionError(absl::StrCat(
              "tensor ", shape.name, ": ", resolved.held->committed_bytes(), " of ",
              resolved.held->bytes(), " bytes of \"", ref.tensor_id, "\" are uploaded")),
          {"UPLOAD_INCOMPLETE", {{"tensor", ref.tensor_id}}});
    }
    resolved.data = resolved.held->data();
    resolved.keep_alive = resolved.held;
    return resolved;
  }
  std::shared_ptr<const Region> region;
  {
    std::lock_guard lock(mutex_);
    const auto it = regions_.find(ref.region->region_id);
    if (it != regions_.end()) region = it->second;
  }
  if (region == nullptr || region->generation() != ref.region->generation) {
    return Gone("REGION_GONE",
                absl::StrCat("tensor ", shape.name, ": the session has no region ",
                             ref.region->region_id, " of generation ", ref.region->generation));
  }
  ANNULUS_ASSIGN_OR_RETURN(resolved.ref,
                           CheckTensorRef(ref, shape, ref.region->offset, region->bytes()));
  resolved.data = region->data() + ref.region->offset;
  resolved.memory = region->memory();
  resolved.keep_alive = std::move(region);
  return resolved;
}

absl::Status Session::Retain(const std::string& request_id, std::shared_ptr<RetainedKv> kv) {
  std::lock_guard lock(mutex_);
  if (retained_.size() >= kRetainedMax && retained_.count(request_id) == 0) {
    return TooMany("retained forwards", kRetainedMax);
  }
  std::swap(retained_[request_id], kv);
  return absl::OkStatus();
}

std::shared_ptr<RetainedKv> Session::FindRetained(const std::string& request_id) const {
  std::lock_guard lock(mutex_);
  const auto it = retained_.find(request_id);
  return it == retained_.end() ? nullptr : it->second;
}

void Session::DropRetained(const std::string& request_id) {
  std::lock_guard lock(mutex_);
  retained_.erase(request_id);
}

void Session::DropRetainedBefore(const std::string& group, uint64_t epoch) {
  std::lock_guard lock(mutex_);
  std::erase_if(retained_, [&](const auto& entry) {
    return entry.second->group == group && entry.second->epoch < epoch;
  });
}

void Session::AddUse(MemoryUse* use) const {
  std::lock_guard lock(mutex_);
  for (const auto& [id, region] : regions_) use->leased += region->bytes();
  for (const auto& [id, tensor] : tensors_) use->uploaded += tensor->bytes();
  for (const auto& [id, kv] : retained_) use->retained += kv->buffer.bytes();
}

}  // namespace annulus::worker
