// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "server/worker/device.h"
#include "server/worker/engine.h"

namespace annulus::worker {

// Memory of a client, mapped for as long as anyone holds the region: a sealed memfd, shared and
// writable, or memory of the device.
class Region {
 public:
  // Takes ownership of `fd` in every case. INVALID_ARGUMENT when it is no memfd, is not sealed
  // against shrinking (a truncated mapping would raise SIGBUS), is smaller than `bytes`, or
  // `bytes` is 0; RESOURCE_EXHAUSTED when it cannot be mapped. Pinned for copies to and from
  // `device` where that is another memory and lets itself be pinned; null: never.
  static absl::StatusOr<std::shared_ptr<const Region>> Map(int fd, uint64_t bytes,
                                                           uint64_t generation,
                                                           std::shared_ptr<Device> device = {});
  // Leaves the handle's descriptor to the caller. INVALID_ARGUMENT when the memory lies on another
  // device, or the lease beyond its allocation; UNIMPLEMENTED when the device takes no memory of
  // other processes; else what the device says.
  static absl::StatusOr<std::shared_ptr<const Region>> Import(const DeviceLease& lease,
                                                              uint64_t generation,
                                                              std::shared_ptr<Device> device);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t generation() const { return generation_; }
  Memory memory() const { return memory_; }

 private:
  Region(void* data, uint64_t bytes, uint64_t generation, Memory memory,
         std::function<void()> unmap)
      : data_(static_cast<uint8_t*>(data)),
        bytes_(bytes),
        generation_(generation),
        memory_(memory),
        unmap_(std::move(unmap)) {}

  uint8_t* const data_;
  const uint64_t bytes_;
  const uint64_t generation_;
  const Memory memory_;
  const std::function<void()> unmap_;
};

}  // namespace annulus::worker
