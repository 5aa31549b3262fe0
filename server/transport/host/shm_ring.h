// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "server/transport/host/frame.h"
#include "server/transport/host/unique_fd.h"

namespace annulus::transport {

inline constexpr size_t kRingSlots = 4;

// The memory two ranks of a host share: one ring of slots for each direction in a sealed memfd.
// Only bytes of chunks lie in it; which slot holds what is said by frames on the link's socket,
// whose system calls also order the accesses. The seals forbid shrinking, so that no access can
// fault.
class ShmRing {
 public:
  enum class Side { kCreator, kReceiver };

  // A fresh ring and, in `fd`, the descriptor to hand over. Null without memory or descriptors.
  static std::unique_ptr<ShmRing> Create(UniqueFd* fd);
  // Maps a ring that was handed over. Null unless it is a sealed memfd of exactly the expected
  // size.
  static std::unique_ptr<ShmRing> Adopt(const UniqueFd& fd);

  ShmRing(const ShmRing&) = delete;
  ShmRing& operator=(const ShmRing&) = delete;
  ~ShmRing();

  // Slot `index` (< kRingSlots, kChunkBytes long) of the outgoing and the incoming direction.
  uint8_t* out(size_t index) const { return out_ + index * kChunkBytes; }
  const uint8_t* in(size_t index) const { return in_ + index * kChunkBytes; }

 private:
  ShmRing(uint8_t* base, Side side);

  uint8_t* base_;
  uint8_t* out_;
  uint8_t* in_;
};

}  // namespace annulus::transport
