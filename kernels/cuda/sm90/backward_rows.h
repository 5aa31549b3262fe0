// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a thread of the backward kernel does with its share of a tile: two rows, which are keys, of
// each the columns 8 j + 2 t and one more, which are queries.

#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/cuda/sm90/attend_rows.h"
#include "kernels/cuda/sm90/backward_shape.h"

namespace annulus::kernels::cuda {

// Row r of a thread in the tile of keys; the first warpgroup computes nothing.
ANNULUS_KERNEL_INLINE int KeyOfThread(int thread, int r) {
  return (thread / 32 - 4) * 16 + thread % 32 / 4 + 8 * r;
}

// Of a thread's elements of a tile, one bit each: a pair that counts.
template <int kQueries>
struct SeenPairs {
  uint32_t words[kQueries / 64];

  ANNULUS_KERNEL_INLINE bool Has(int i) const { return (words[i / 32] >> i % 32 & 1) != 0; }
};

// `notes`: of the tile of queries, see BackwardPlaces::Notes.
template <int kQueries, class Thread>
ANNULUS_KERNEL_INLINE SeenPairs<kQueries> FindSeenPairs(Thread& t, const annulusMask& mask,
                                                        const Tile& keys, const Tile& queries,
                                                        uint32_t notes) {
  SeenPairs<kQueries> seen = {};
  const int thread = t.Forgotten(t.thread());
  const int quad_place = thread % 4;
  Interval of_row[2];
  ANNULUS_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int key = KeyOfThread(thread, r);
    of_row[r] =
        key < keys.rows ? QueriesThatSee(mask, keys.PositionOf(key), queries) : Interval{0, 0};
  }
  constexpr uint32_t kDead = 0xff800000u;  // -inf
  ANNULUS_UNROLL
  for (int j = 0; j < kQueries / 8; ++j) {
    const FourWords note = t.LoadFour(notes + kNoteHeaderBytes + 16 * (4 * j + quad_place));
    ANNULUS_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int query = 8 * j + 2 * quad_place + i % 2;
      const bool counts = of_row[i / 2].Holds(query) && note.at[i % 2] != kDead;
      seen.words[j / 8] |= static_cast<uint32_t>(counts) << (4 * j + i) % 32;
    }
  }
  return seen;
}

// Zero where a pair does not count, whatever was there.
template <int kQueries>
ANNULUS_KERNEL_INLINE void HidePairs(const SeenPairs<kQueries>& seen,
                                     float (&values)[kQueries / 2]) {
  ANNULUS_UNROLL
  for (int i = 0; i < kQueries / 2; ++i) {
    if (!seen.Has(i)) values[i] = 0.0f;
  }
}

// Scores to weights: exp(scale s - lse).
template <int kQueries, class Thread>
ANNULUS_KERNEL_INLINE void WeighPairs(Thread& t, float scale_log2, uint32_t notes,
                                      float (&scores)[kQueries / 2]) {
  const uint32_t own = notes + kNoteHeaderBytes + 16 * (t.Forgotten(t.thread()) % 4);
  ANNULUS_UNROLL
  for (int j = 0; j < kQueries / 8; ++j) {
    const FourWords note = t.LoadFour(own + 64 * j);
    ANNULUS_UNROLL
    for (int i = 0; i < 4; ++i) {
      const auto lse = std::bit_cast<float>(note.at[i % 2]);
      scores[4 * j + i] = t.Exp2(scores[4 * j + i] * scale_log2 - lse);
    }
  }
}

// Gradients of weights to those of scores, without the scale: w (dw - delta).
template <int kQueries, class Thread>
ANNULUS_KERNEL_INLINE void DifferentiatePairs(Thread& t, uint32_t notes,
                                              const float (&weights)[kQueries / 2],
                                              float (&gradients)[kQueries / 2]) {
  const uint32_t own = notes + kNoteHeaderBytes + 16 * (t.Forgotten(t.thread()) % 4);
  ANNULUS_UNROLL
  for (int j = 0; j < kQueries / 8; ++j) {
    const FourWords note = t.LoadFour(own + 64 * j);
    ANNULUS_UNROLL
    for (int i = 0; i < 4; ++i) {
      const auto delta = std::bit_cast<float>(note.at[2 + i % 2]);
      gradients[4 * j + i] = weights[4 * j + i] * (gradients[4 * j + i] - delta);
    }
  }
}

// As the operand A of the products with a tile of queries.
template <class Half, int kQueries, class Thread>
ANNULUS_KERNEL_INLINE void RoundPairs(Thread& t, const float (&values)[kQueries / 2],
                                      uint32_t (&pairs)[kQueries / 16][4]) {
  ANNULUS_UNROLL
  for (int i = 0; i < kQueries / 4; ++i) {
    pairs[i / 4][i % 4] = t.template RoundPair<Half>(values[2 * i], values[2 * i + 1]);
  }
}

// Where the word of key and query / 2 lies in a tile of weights.
ANNULUS_KERNEL_INLINE uint32_t WeightAddress(uint32_t tile, uint32_t panel_bytes, int key,
                                             int query) {
  return Swizzled(tile + query / kPanelColumns * panel_bytes + key * kPanelRowBytes +
                  query % kPanelColumns / 2 * 4);
}

template <int kQueries, class Thread>
ANNULUS_KERNEL_INLINE void StorePairs(Thread& t, uint32_t tile, uint32_t panel_bytes,
                                      const uint32_t (&pairs)[kQueries / 16][4]) {
  const int thread = t.Forgotten(t.thread());  // 16 addresses, each used once
  ANNULUS_UNROLL
  for (int i = 0; i < kQueries / 4; ++i) {
    const int query = i / 2 * 8 + 2 * (thread % 4);
    t.StoreWord(WeightAddress(tile, panel_bytes, KeyOfThread(thread, i % 2), query),
                pairs[i / 4][i % 4]);
  }
}

// Adds factor * sums to the thread's rows, of those that are there.
template <int kDim>
ANNULUS_KERNEL_INLINE void AddToKeyRows(const annulusTensor& to, const BackwardUnit& unit,
                                        int thread, int64_t row_offset, float factor,
                                        const float (&sums)[kDim / 2]) {
  constexpr int kAtOnce = 8;  // loads under way
  ANNULUS_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int key = KeyOfThread(thread, r);
    if (key >= unit.keys.rows) continue;
    float* const out =
        FloatRow(to, unit.batch, unit.keys.row + key + row_offset, unit.kv_head) + 2 * (thread % 4);
    ANNULUS_UNROLL
    for (int first = 0; first < kDim / 8; first += kAtOnce) {
      FloatPair pairs[kAtOnce] = {};
      ANNULUS_UNROLL
      for (int j = 0; j < kAtOnce; ++j) {
        if (8 * (first + j) >= to.head_dim) continue;
        pairs[j] = *reinterpret_cast<const FloatPair*>(out + 8 * (first + j));
      }
      ANNULUS_UNROLL
      for (int j = 0; j < kAtOnce; ++j) {
        if (8 * (first + j) >= to.head_dim) continue;
        const int i = 4 * (first + j) + 2 * r;
        *reinterpret_cast<FloatPair*>(out + 8 * (first + j)) = {
            {pairs[j].at[0] + factor * sums[i], pairs[j].at[1] + factor * sums[i + 1]}};
      }
    }
  }
}

}  // namespace annulus::kernels::cuda
