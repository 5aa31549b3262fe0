// SPDX-License-Identifier: Apache-2.0
#pragma once

// Fragments of the 16 x 8 x 16 matrix instruction (mma.sync.m16n8k16, float32 accumulators) and the
// tiles in shared memory that they are read from.
//
// Lane = 4 g + t of a warp holds, two 16-bit elements a word:
//   A (16 x 16)  rows g and g + 8, columns 2t, 2t + 1 and 2t + 8, 2t + 9
//   B (16 x 8)   rows 2t, 2t + 1 and 2t + 8, 2t + 9 of column g
//   C (16 x 8)   columns 2t, 2t + 1 of row g, then of row g + 8
// So C of two neighbouring products, rounded, is A of the next: weights never leave the registers.
//
// A `Thread` that runs these (portable/block_tile.h) also has
//   void Mma<Half>(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]);   c += a b
//   uint32_t RoundPair<Half>(float low, float high);
//   float ShuffleFrom(float value, int lane);
//   bool SyncOr(bool flag);                        Sync, and whether the flag is set in any thread

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/half.h"
#include "kernels/cuda/tile_schedule.h"
#include "kernels/host_device.h"
#include "kernels/tensor_view.h"

namespace annulus::kernels::cuda {

inline constexpr int kMatrixThreads = 128;  // four warps of 16 queries
inline constexpr int kMatrixRows = 64;      // of a tile of queries and of keys
inline constexpr int kKeyBlocks = kMatrixRows / 8;

// Eight elements more than a row has: the rows of a fragment lie in different banks.
template <int kDim>
inline constexpr int kMatrixPitch = kDim + 8;
inline constexpr int kTransposedPitch = kMatrixRows + 8;

// Eight elements of a row, which lie on a boundary of 16 bytes if the tensor's rows all do.
struct alignas(16) Eight {
  uint16_t at[8];
};

ANNULUS_KERNEL_INLINE bool RowsAreAligned(const annulusTensor& t) {
  return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 &&
         (t.batch_stride | t.row_stride | t.head_stride) % 8 == 0;
}

ANNULUS_KERNEL_INLINE Eight LoadEight(const uint16_t* from, bool aligned) {
  if (aligned) return *reinterpret_cast<const Eight*>(from);
  Eight eight;
  for (int i = 0; i < 8; ++i) eight.at[i] = from[i];
  return eight;
}

// Calls store(row, column, Eight) for every eight elements of a tile; zero beyond the tensor's rows
// and columns.
template <int kDim, class Thread, class Store>
ANNULUS_KERNEL_INLINE void ForEachEight(Thread& t, const annulusTensor& from, int64_t batch,
                                        int64_t head, const Tile& tile, Store store) {
  constexpr int kEights = kDim / 8;
  const bool aligned = RowsAreAligned(from);
  for (int i = t.thread(); i < kMatrixRows * kEights; i += kMatrixThreads) {
    const int row = i / kEights;
    const int column = i % kEights * 8;
    Eight eight = {};
    if (row < tile.rows && column < from.head_dim) {
      const void* start = RowPointer(from, batch, tile.row + row, head);
      eight = LoadEight(static_cast<const uint16_t*>(start) + column, aligned);
    }
    store(row, column, eight);
  }
}

// Two neighbouring elements as the word of a fragment; the first at an even place of its tile.
ANNULUS_KERNEL_INLINE uint32_t Pair(const uint16_t* from) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const uint32_t*>(from);  // one load
#else
  return from[0] | uint32_t{from[1]} << 16;
#endif
}

}  // namespace annulus::kernels::cuda
