// SPDX-License-Identifier: Apache-2.0
#pragma once

// Device memory for what lies between cuDNN's kernels and the accumulators of a call: one arena a
// stream, since the work of a stream runs in order. Not thread safe.

#include <cstddef>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/driver.h"

namespace annulus::kernels::cuda {

// Pieces of an arena, one after another, each 256-byte aligned: offsets, until there is memory.
class ScratchLayout {
 public:
  size_t Take(size_t bytes) {
    const size_t offset = bytes_;
    bytes_ += (bytes + 255) / 256 * 256;
    return offset;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

class Scratch {
 public:
  // Of a stream. What is outgrown is kept until the stream goes, since work may still use it; it
  // grows by at least half, so that all of it is at most three times as much.
  static constexpr size_t kBytesMax = size_t{4} << 30;

  explicit Scratch(Driver* driver) : driver_(driver) {}
  ~Scratch();

  // RESOURCE_EXHAUSTED: beyond kBytesMax, or no memory left.
  absl::StatusOr<char*> Reserve(Driver::Stream stream, size_t bytes);
  // Frees what the stream has; its work is done.
  void Release(Driver::Stream stream);

 private:
  struct Arena {
    char* memory = nullptr;
    size_t bytes = 0;
    std::vector<void*> outgrown;
  };
  void Free(const Arena& arena);

  Driver* const driver_;
  std::map<Driver::Stream, Arena> arenas_;
};

}  // namespace annulus::kernels::cuda
