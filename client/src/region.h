// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "annulus/device_memory.h"
#include "server/base/region_protocol.h"

namespace annulus::client {

class RegionRegistry;

// A sealed memfd mapped here and, by lease, in workers of this host; or device memory that the
// caller exported, which nobody touches here. `id` and `generation` name what a worker holds; both
// change with Rehome.
class Region {
 public:
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  struct Identity {
    uint64_t id = 0;
    uint64_t generation = 0;
    int fd = -1;  // owned by the region, valid until the next Rehome; device memory may have none
  };
  Identity identity() const;
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  // What a worker is told of device memory; null for a memfd.
  const RegionDeviceMemory* device_memory() const { return device_ ? &*device_ : nullptr; }
  // Device memory that a worker of a failed call may still write to.
  bool spoiled() const;

  // Moves the contents to a new memfd under the same address: whoever still holds the old one reads
  // and writes memory that nobody looks at any more. For the time after a fault, when a worker that
  // was not seen to stop may wake up and finish a write. No other thread may write to the region
  // meanwhile. RESOURCE_EXHAUSTED: the region stays as it was. Device memory stays where it is, and
  // is spoiled from then on.
  absl::Status Rehome();

 private:
  friend class RegionRegistry;
  Region(std::weak_ptr<RegionRegistry> registry, uint8_t* data, size_t size, Identity identity,
         std::optional<RegionDeviceMemory> device = std::nullopt)
      : registry_(std::move(registry)),
        data_(data),
        size_(size),
        device_(device),
        identity_(identity) {}

  std::weak_ptr<RegionRegistry> registry_;
  uint8_t* const data_;
  const size_t size_;
  const std::optional<RegionDeviceMemory> device_;
  mutable absl::Mutex mutex_;
  Identity identity_ ABSL_GUARDED_BY(mutex_);
  bool spoiled_ ABSL_GUARDED_BY(mutex_) = false;
};

// Every region of one client: finds the one that a pointer lies in. Thread safe.
class RegionRegistry : public std::enable_shared_from_this<RegionRegistry> {
 public:
  // `on_gone` is told the id of every identity that ended, without locks held.
  explicit RegionRegistry(std::function<void(uint64_t)> on_gone);

  // Zeroed memory of `size` bytes, at least 1. RESOURCE_EXHAUSTED when the system refuses.
  absl::StatusOr<std::shared_ptr<Region>> Create(size_t size);
  // Device memory of the caller, at `data` in this process. INVALID_ARGUMENT as LeaseDeviceMemory.
  absl::StatusOr<std::shared_ptr<Region>> Adopt(void* data, size_t size,
                                                const DeviceMemoryHandle& handle);
  // The region that holds all of [data, data + bytes); null if none does.
  std::shared_ptr<Region> Find(const void* data, size_t bytes) const;

 private:
  friend class Region;
  void Remove(const Region& region);
  void Gone(uint64_t id) const { on_gone_(id); }

  const std::function<void(uint64_t)> on_gone_;
  mutable absl::Mutex mutex_;
  std::map<const uint8_t*, std::weak_ptr<Region>> regions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace annulus::client
