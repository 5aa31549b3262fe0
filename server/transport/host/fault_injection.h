// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace annulus::transport {

// Lets a test damage chunks on their way, after their checksum was taken, in every transport of
// this process. Nothing in the product arms it.
class ChunkDamage {
 public:
  static void Arm(uint32_t chunks) { left().store(chunks, std::memory_order_relaxed); }

  // True when the chunk at hand is to be damaged.
  static bool Take() {
    uint32_t have = left().load(std::memory_order_relaxed);
    while (have > 0) {
      if (left().compare_exchange_weak(have, have - 1, std::memory_order_relaxed)) return true;
    }
    return false;
  }

 private:
  static std::atomic<uint32_t>& left() {
    static std::atomic<uint32_t> chunks{0};
    return chunks;
  }
};

}  // namespace annulus::transport
