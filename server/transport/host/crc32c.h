// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa-l/crc.h"

namespace annulus::transport {

// CRC32C (Castagnoli) of bytes that arrive in pieces. `value` of no bytes is 0, of "123456789"
// 0xE3069283.
class Crc32c {
 public:
  void Add(const void* data, size_t bytes) {
    // The library's length is an int and its pointer not const, although it only reads.
    auto* at = const_cast<unsigned char*>(static_cast<const unsigned char*>(data));
    while (bytes > 0) {
      const size_t piece = bytes < kPieceBytes ? bytes : kPieceBytes;
      state_ = crc32_iscsi(at, static_cast<int>(piece), state_);
      at += piece;
      bytes -= piece;
    }
  }
  uint32_t value() const { return ~state_; }

 private:
  static constexpr size_t kPieceBytes = size_t{1} << 30;
  uint32_t state_ = 0xFFFFFFFFu;
};

inline uint32_t Crc32cOf(const void* data, size_t bytes) {
  Crc32c crc;
  crc.Add(data, bytes);
  return crc.value();
}

}  // namespace annulus::transport
