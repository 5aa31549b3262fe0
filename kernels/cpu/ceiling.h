// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/thread_pool.h"

namespace annulus::kernels::cpu {

// What this processor does at best; see annulusCeiling. A call hands every thread several short
// items of the same size, so that a thread that wakes late costs the time of one at most.

// Independent fused multiply-adds on the widest vectors in use. Returns the floating-point
// operations done.
double RunMultiplyAdds(ThreadPool* pool);

// An array far beyond the caches, made by the first call. Throws std::bad_alloc, as AlignedBuffer.
class ReadArray {
 public:
  // Reads a few MiB a thread on from where the last call stopped, so that no call finds its bytes
  // in a cache. Returns the bytes read.
  double Read(ThreadPool* pool);

 private:
  AlignedBuffer floats_;
  int64_t next_piece_ = 0;
};

}  // namespace annulus::kernels::cpu
