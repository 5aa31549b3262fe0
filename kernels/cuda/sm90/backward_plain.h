// SPDX-License-Identifier: Apache-2.0
#pragma once

// Sums without the matrix unit, for a tile that is seen in part only and holds something that is
// not finite: zero times NaN is NaN, so what does not count must not be multiplied at all. Weights
// are read from shared memory, where zero is written for a pair that does not count and minus zero
// for one that counts and has no weight.

#include <bit>
#include <cstdint>

#include "kernels/cuda/sm90/backward_rows.h"

namespace annulus::kernels::cuda {

// Rounded weights as they are told apart above.
template <int kQueries>
ANNULUS_KERNEL_INLINE void MarkSeenPairs(const SeenPairs<kQueries>& seen,
                                         uint32_t (&pairs)[kQueries / 16][4]) {
  ANNULUS_UNROLL
  for (int i = 0; i < kQueries / 4; ++i) {
    uint32_t& pair = pairs[i / 4][i % 4];
    uint32_t low = pair & 0xffffu;
    uint32_t high = pair & 0xffff0000u;
    if (low == 0) low = 0x8000u;
    if (high == 0) high = 0x80000000u;
    pair = (seen.Has(2 * i) ? low : 0) | (seen.Has(2 * i + 1) ? high : 0);
  }
}

template <class Thread>
ANNULUS_KERNEL_INLINE uint16_t LoadHalf(Thread& t, uint32_t word_address, int place) {
  const uint32_t word = t.LoadWord(word_address);
  return static_cast<uint16_t>(place % 2 == 0 ? word : word >> 16);
}

// Sum over depth of weight(depth), as bits, times a column of the tile.
template <class Half, class Thread, class Weight>
ANNULUS_KERNEL_INLINE float PlainSum(Thread& t, int depths, Weight weight, uint32_t tile,
                                     uint32_t panel_bytes, int column) {
  float sum = 0.0f;
  ANNULUS_KEEP_ROLLED
  for (int depth = 0; depth < depths; ++depth) {
    const uint16_t bits = weight(depth);
    if (bits == 0) continue;
    sum += Half::ToFloat(bits) *
           Half::ToFloat(LoadHalf(t, WeightAddress(tile, panel_bytes, depth, column), column));
  }
  return sum;
}

// dk, dv += of one tile: weights lie in the room for sums, their gradients in that for weights.
template <class Half, int kDim, class Thread>
ANNULUS_KERNEL_INLINE void AddPlainKeyRows(Thread& t, const HopperBackwardParams& p,
                                           const BackwardUnit& unit, uint32_t stage) {
  using Shape = BackwardShape<kDim>;
  const BackwardPlaces<kDim> shared{t.shared()};
  ANNULUS_KEEP_ROLLED
  for (int i = t.thread() - kWarpgroupThreads; i < Shape::kKeys * kDim;
       i += Shape::kConsumerThreads) {
    const int key = i / kDim;
    const int column = i % kDim;
    if (key >= unit.keys.rows || column >= p.dk.head_dim) continue;
    const int64_t row = unit.keys.row + key + p.dkv_row_offset;
    const auto of_key = [&t, key](uint32_t tile) {
      return [&t, key, tile](int query) {
        return LoadHalf(t, WeightAddress(tile, Shape::kKeyPanelBytes, key, query), query);
      };
    };
    FloatRow(p.dv, unit.batch, row, unit.kv_head)[column] +=
        PlainSum<Half>(t, Shape::kQueries, of_key(shared.Sums()), shared.OutputGradients(stage),
                       Shape::kQueryPanelBytes, column);
    FloatRow(p.dk, unit.batch, row, unit.kv_head)[column] +=
        p.softmax_scale * PlainSum<Half>(t, Shape::kQueries, of_key(shared.Weights()),
                                         shared.Queries(stage), Shape::kQueryPanelBytes, column);
  }
}

// dq of one tile, to the room for sums.
template <class Half, int kDim, class Thread>
ANNULUS_KERNEL_INLINE void WritePlainSums(Thread& t, float scale) {
  using Shape = BackwardShape<kDim>;
  const BackwardPlaces<kDim> shared{t.shared()};
  ANNULUS_KEEP_ROLLED
  for (int i = t.thread() - kWarpgroupThreads; i < Shape::kQueries * kDim;
       i += Shape::kConsumerThreads) {
    const int query = i / kDim;
    const int column = i % kDim;
    const auto of_query = [&t, &shared, query](int key) {
      return LoadHalf(t, WeightAddress(shared.Weights(), Shape::kKeyPanelBytes, key, query), query);
    };
    const float sum = scale * PlainSum<Half>(t, Shape::kKeys, of_query, shared.Keys(),
                                             Shape::kKeyPanelBytes, column);
    t.StoreWord(shared.Sums() + query * Shape::kSumRowBytes + 4 * column,
                std::bit_cast<uint32_t>(sum));
  }
}

// Whether all of the tile is finite, looked at by `threads` threads of which this is number `own`.
template <class Half, uint32_t kBytes, int kThreads, class Thread>
ANNULUS_KERNEL_INLINE bool IsFinite(Thread& t, uint32_t tile, int own) {
  uint32_t sum[4] = {0, 0, 0, 0};
  ANNULUS_UNROLL
  for (uint32_t at = 0; at < kBytes; at += kThreads * sizeof(FourWords)) {
    const FourWords words = t.LoadFour(tile + at + own * static_cast<uint32_t>(sizeof(FourWords)));
    ANNULUS_UNROLL
    for (int i = 0; i < 4; ++i) sum[i] = t.template AddZeroTimes<Half>(words.at[i], sum[i]);
  }
  bool finite = true;
  ANNULUS_UNROLL
  for (int i = 0; i < 4; ++i) {
    finite = finite && Half::Finite(static_cast<uint16_t>(sum[i])) &&
             Half::Finite(static_cast<uint16_t>(sum[i] >> 16));
  }
  return finite;
}

}  // namespace annulus::kernels::cuda
