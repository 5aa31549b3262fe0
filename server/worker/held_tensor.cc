// SPDX-License-Identifier: Apache-2.0
#include "server/worker/held_tensor.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"

namespace annulus::worker {

absl::StatusOr<std::shared_ptr<HeldTensor>> HeldTensor::Create(MemoryPool* pool, uint64_t bytes) {
  ANNULUS_ASSIGN_OR_RETURN(Buffer buffer, pool->Take(bytes, "a client's tensor", Memory::kHost));
  if (bytes > 0) std::memset(buffer.data(), 0, bytes);
  return std::shared_ptr<HeldTensor>(new HeldTensor(std::move(buffer), bytes));
}

uint64_t HeldTensor::committed_bytes() const {
  std::lock_guard lock(mutex_);
  return committed_bytes_;
}

absl::StatusOr<uint64_t> HeldTensor::Write(uint64_t offset, const void* data, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (offset != committed_bytes_ || bytes > bytes_ - committed_bytes_) {
    return WithFaultInfo(
        absl::OutOfRangeError(absl::StrCat("upload of ", bytes, " bytes at offset ", offset, "; ",
                                           committed_bytes_, " of ", bytes_,
                                           " bytes are committed, resume there")),
        {"WRONG_OFFSET", {{"committed_bytes", absl::StrCat(committed_bytes_)}}});
  }
  if (bytes > 0) std::memcpy(buffer_.data() + offset, data, bytes);
  committed_bytes_ += bytes;
  return committed_bytes_;
}

void HeldTensor::CommitAll() {
  std::lock_guard lock(mutex_);
  committed_bytes_ = bytes_;
}

}  // namespace annulus::worker
