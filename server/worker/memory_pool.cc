// SPDX-License-Identifier: Apache-2.0
#include "server/worker/memory_pool.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::worker {
namespace {

constexpr size_t kGranuleBytes = 4096;
constexpr size_t kIdleBuffersMax = 64;
constexpr uint64_t kIdleBytesWithoutLimit = uint64_t{1} << 30;

}  // namespace

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(memory_, other.memory_);
  std::swap(reservation_, other.reservation_);
  return *this;
}

Buffer::~Buffer() {
  if (pool_ == nullptr) return;
  const std::shared_ptr<MemoryPool> pool = std::move(pool_);
  pool->Return(std::move(*this));
}

MemoryPool::MemoryPool(std::shared_ptr<Device> device, uint64_t limit_bytes)
    : device_(std::move(device)),
      wire_memory_(std::make_shared<WireMemory>(device_)),
      ledger_(limit_bytes),
      idle_limit_bytes_(limit_bytes == 0 ? kIdleBytesWithoutLimit : limit_bytes / 4) {}

MemoryPool::~MemoryPool() {
  for (const Idle& idle : idle_) Free(idle.data, idle.memory);
}

absl::StatusOr<Buffer> MemoryPool::Take(size_t bytes, std::string_view what, Memory memory) {
  if (bytes > std::numeric_limits<size_t>::max() / 2) {
    return absl::ResourceExhaustedError(
        absl::StrCat(absl::string_view(what.data(), what.size()), " needs ", bytes, " bytes"));
  }
  const size_t rounded = (bytes + kGranuleBytes - 1) / kGranuleBytes * kGranuleBytes;
  Buffer buffer;
  if (rounded == 0) return buffer;
  if (device_->host_memory()) memory = Memory::kDevice;
  if (TakeIdle(rounded, memory, &buffer)) return buffer;
  MakeRoom(rounded);
  ANNULUS_ASSIGN_OR_RETURN(buffer.reservation_, ledger_.Reserve(rounded, what));
  ANNULUS_ASSIGN_OR_RETURN(void* data, device_->Allocate(rounded, memory));
  wire_memory_->AddSlab(data, rounded, memory);
  buffer.data_ = static_cast<uint8_t*>(data);
  buffer.bytes_ = rounded;
  buffer.memory_ = memory;
  buffer.pool_ = shared_from_this();
  return buffer;
}

bool MemoryPool::TakeIdle(size_t bytes, Memory memory, Buffer* buffer) {
  std::lock_guard lock(mutex_);
  auto best = idle_.end();
  for (auto it = idle_.begin(); it != idle_.end(); ++it) {
    const bool fits = it->memory == memory && it->bytes >= bytes && it->bytes <= bytes + bytes / 4;
    if (fits && (best == idle_.end() || it->bytes < best->bytes)) best = it;
  }
  if (best == idle_.end()) return false;
  buffer->data_ = best->data;
  buffer->bytes_ = best->bytes;
  buffer->memory_ = best->memory;
  buffer->reservation_ = std::move(best->reservation);
  buffer->reservation_.SetIdle(false);
  buffer->pool_ = shared_from_this();
  idle_.erase(best);
  return true;
}

void MemoryPool::MakeRoom(size_t bytes) {
  std::lock_guard lock(mutex_);
  while (!idle_.empty() && !ledger_.FitsNow(bytes) && ledger_.FitsWithoutIdle(bytes)) {
    FreeOldest();
  }
}

void MemoryPool::Free(uint8_t* data, Memory memory) {
  wire_memory_->RemoveSlab(data);
  device_->Free(data, memory);
}

void MemoryPool::FreeOldest() {
  Free(idle_.front().data, idle_.front().memory);
  idle_.erase(idle_.begin());
}

void MemoryPool::Return(Buffer&& buffer) {
  std::lock_guard lock(mutex_);
  if (buffer.bytes_ > idle_limit_bytes_) {
    Free(buffer.data_, buffer.memory_);
    return;
  }
  uint64_t total = buffer.bytes_;
  for (const Idle& idle : idle_) total += idle.bytes;
  while (!idle_.empty() && (total > idle_limit_bytes_ || idle_.size() >= kIdleBuffersMax)) {
    total -= idle_.front().bytes;
    FreeOldest();
  }
  buffer.reservation_.SetIdle(true);
  idle_.push_back({buffer.data_, buffer.bytes_, buffer.memory_, std::move(buffer.reservation_)});
}

}  // namespace annulus::worker
