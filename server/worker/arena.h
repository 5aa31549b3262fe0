// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace annulus::worker {

// Lays pieces of one allocation one after the other, each aligned; remembers where each pointer has
// to go.
class Arena {
 public:
  void Add(uint64_t bytes, uint8_t** pointer) {
    if (bytes > kTooLarge || total_ > kTooLarge) {
      total_ = std::numeric_limits<uint64_t>::max();
      return;
    }
    pieces_.push_back({pointer, total_});
    total_ += (bytes + kAlignBytes - 1) / kAlignBytes * kAlignBytes;
  }
  // Bytes of all pieces; the largest number there is when they are too many.
  uint64_t total() const { return total_; }
  void Place(uint8_t* base) const {
    for (const Piece& piece : pieces_) *piece.pointer = base + piece.offset;
  }

  static constexpr uint64_t kTooLarge = std::numeric_limits<uint64_t>::max() / 4;

 private:
  static constexpr uint64_t kAlignBytes = 64;
  struct Piece {
    uint8_t** pointer;
    uint64_t offset;
  };
  std::vector<Piece> pieces_;
  uint64_t total_ = 0;
};

}  // namespace annulus::worker
