// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/worker/device.h"
#include "server/worker/ledger.h"
#include "server/worker/wire_memory.h"

namespace annulus::worker {

class MemoryPool;

// Memory of one kind, counted in the ledger while it lives; goes back to its pool. 64-byte aligned.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  friend class MemoryPool;
  std::shared_ptr<MemoryPool> pool_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  Memory memory_ = Memory::kDevice;
  Ledger::Reservation reservation_;
};

// Hands out memory of the device, and pinned memory of the host to a device apart from it, both
// counted against one limit, and keeps what comes back, up to a share of the limit, for the next
// request: fresh pages cost more than a hop. What is idle gives way when a request needs the room.
// What it allocates is known to wire_memory() until it is freed. Thread safe.
class MemoryPool : public std::enable_shared_from_this<MemoryPool> {
 public:
  MemoryPool(std::shared_ptr<Device> device, uint64_t limit_bytes);
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // Contents are undefined. RESOURCE_EXHAUSTED, before anything is allocated, beyond the limit.
  absl::StatusOr<Buffer> Take(size_t bytes, std::string_view what, Memory memory = Memory::kDevice);

  const std::shared_ptr<WireMemory>& wire_memory() const { return wire_memory_; }
  Ledger& ledger() { return ledger_; }
  const Ledger& ledger() const { return ledger_; }

 private:
  friend class Buffer;
  struct Idle {
    uint8_t* data = nullptr;
    size_t bytes = 0;
    Memory memory = Memory::kDevice;
    Ledger::Reservation reservation;
  };
  void Return(Buffer&& buffer);
  bool TakeIdle(size_t bytes, Memory memory, Buffer* buffer);
  void Free(uint8_t* data, Memory memory);
  void FreeOldest();  // with mutex_ held
  void MakeRoom(size_t bytes);

  const std::shared_ptr<Device> device_;
  const std::shared_ptr<WireMemory> wire_memory_;
  Ledger ledger_;
  const uint64_t idle_limit_bytes_;
  std::mutex mutex_;
  std::vector<Idle> idle_;  // guarded by mutex_; oldest first
};

}  // namespace annulus::worker
