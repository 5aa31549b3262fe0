// SPDX-License-Identifier: Apache-2.0
#pragma once

// The rows of the forward kernel that a thread has a share in: their state in memory, and the step
// of the online softmax over one tile of keys. A thread of a warpgroup holds what hopper_thread.h
// says of an accumulator: two rows, of each the columns 8 j + 2 t and one more.

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cuda/sm90/attend_shape.h"
#include "kernels/softmax_state.h"

namespace annulus::kernels::cuda {

inline constexpr float kLog2OfE = 1.4426950408889634f;
inline constexpr float kLnOf2 = 0.6931471805599453f;
inline constexpr int kScores = kWalkKeys / 2;  // of a thread, by tile of keys

// `softmax` in units of log2: the maximum is the row's, the sum the thread's own share.
template <int kDim>
struct AttendRowsState {
  SoftmaxState<float> softmax[2];
  bool touched[2];
  float output[kDim / 2];
};

struct alignas(8) FloatPair {
  float at[2];
};

// Row r of a thread in the tile of queries; the first warpgroup has none.
ANNULUS_KERNEL_INLINE int RowOfThread(int thread, int r) {
  return (thread / 32 - 4) * 16 + thread % 32 / 4 + 8 * r;
}

// Which rows a thread has, and where in the output they are.
struct RowPlaces {
  int quad_place;  // t
  int row[2];      // of the tile
  bool there[2];
  int64_t at[2];  // row of o and lse

  ANNULUS_KERNEL_INLINE RowPlaces(int thread, const Tile& queries, int64_t row_offset)
      : quad_place(thread % 4) {
    ANNULUS_UNROLL
    for (int r = 0; r < 2; ++r) {
      row[r] = RowOfThread(thread, r);
      there[r] = row[r] < queries.rows;
      at[r] = queries.row + row[r] + row_offset;
    }
  }
};

// From (o, lse) in memory: maximum lse, sum 1, o itself. The identity's o is not read.
template <int kDim>
ANNULUS_KERNEL_INLINE void LoadRows(const HopperAttendParams& p, const AttendUnit& unit,
                                    const RowPlaces& places, AttendRowsState<kDim>& rows) {
  ANNULUS_UNROLL
  for (int r = 0; r < 2; ++r) {
    float lse = -std::numeric_limits<float>::infinity();
    if (places.there[r]) lse = RowStatAt(p.lse, unit.batch, places.at[r], unit.head);
    const bool empty = lse == -std::numeric_limits<float>::infinity();
    rows.softmax[r].max = lse * kLog2OfE;
    rows.softmax[r].sum = !empty && places.quad_place == 0 ? 1.0f : 0.0f;
    rows.touched[r] = false;
    const float* o = FloatRow(p.o, unit.batch, places.at[r], unit.head) + 2 * places.quad_place;
    ANNULUS_UNROLL
    for (int j = 0; j < kDim / 8; ++j) {
      FloatPair pair = {{0.0f, 0.0f}};
      if (!empty && 8 * j < p.o.head_dim) pair = *reinterpret_cast<const FloatPair*>(o + 8 * j);
      rows.output[4 * j + 2 * r] = pair.at[0];
      rows.output[4 * j + 2 * r + 1] = pair.at[1];
    }
  }
}

// A row that saw no key, or none with a weight, keeps its bytes.
template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void StoreRows(Thread& t, const HopperAttendParams& p, const AttendUnit& unit,
                                     const RowPlaces& places, const AttendRowsState<kDim>& rows) {
  ANNULUS_UNROLL
  for (int r = 0; r < 2; ++r) {
    float sum = rows.softmax[r].sum;
    sum += t.ShuffleXor(sum, 1);
    sum += t.ShuffleXor(sum, 2);
    if (!places.there[r] || !rows.touched[r] || sum == 0.0f) continue;
    const float inverse = 1.0f / sum;
    float* const o = FloatRow(p.o, unit.batch, places.at[r], unit.head) + 2 * places.quad_place;
    ANNULUS_UNROLL
    for (int j = 0; j < kDim / 8; ++j) {
      if (8 * j >= p.o.head_dim) continue;
      *reinterpret_cast<FloatPair*>(o + 8 * j) = {
          {rows.output[4 * j + 2 * r] * inverse, rows.output[4 * j + 2 * r + 1] * inverse}};
    }
    if (places.quad_place == 0) {
      RowStatAt(p.lse, unit.batch, places.at[r], unit.head) =
          rows.softmax[r].max * kLnOf2 + std::log(sum);
    }
  }
}

// Scores that a row does not see become -inf, whatever they were.
ANNULUS_KERNEL_INLINE void HideScores(const Interval (&seen)[2], int quad_place,
                                      float (&scores)[kScores]) {
  ANNULUS_UNROLL
  for (int i = 0; i < kScores; ++i) {
    const int column = i / 4 * 8 + 2 * quad_place + i % 2;
    if (!seen[i / 2 % 2].Holds(column)) scores[i] = -std::numeric_limits<float>::infinity();
  }
}

// Scores to weights, relative to the row's new maximum; factor[r] is what the row's output must be
// multiplied with. NaN is passed over in the maximum: it shows in the sum. `scale_log2` > 0.
template <class Thread>
ANNULUS_KERNEL_INLINE void Weigh(Thread& t, float scale_log2, float (&scores)[kScores],
                                 SoftmaxState<float> (&softmax)[2], float (&factor)[2]) {
  const auto raise = [&t](float x) { return t.Exp2(x); };
  ANNULUS_UNROLL
  for (int r = 0; r < 2; ++r) {
    // Two chains each for maximum and sum: half the latency.
    float largest[2] = {scores[2 * r], scores[2 * r + 1]};
    ANNULUS_UNROLL
    for (int i = 4 + 2 * r; i < kScores; i += 4) {
      largest[0] = fmaxf(largest[0], scores[i]);
      largest[1] = fmaxf(largest[1], scores[i + 1]);
    }
    float of_row = fmaxf(largest[0], largest[1]);
    of_row = fmaxf(of_row, t.ShuffleXor(of_row, 1));
    of_row = fmaxf(of_row, t.ShuffleXor(of_row, 2));
    factor[r] = RaiseMax(softmax[r], of_row * scale_log2, raise);
    const float max = SafeMax(softmax[r].max);
    float sum[2] = {0.0f, 0.0f};
    ANNULUS_UNROLL
    for (int i = 2 * r; i < kScores; i += 4) {
      scores[i] = t.Exp2(scores[i] * scale_log2 - max);
      scores[i + 1] = t.Exp2(scores[i + 1] * scale_log2 - max);
      sum[0] += scores[i];
      sum[1] += scores[i + 1];
    }
    softmax[r].sum += sum[0] + sum[1];
  }
}

template <int kDim>
ANNULUS_KERNEL_INLINE void ScaleOutput(const float (&factor)[2], float (&output)[kDim / 2]) {
  ANNULUS_UNROLL
  for (int i = 0; i < kDim / 2; ++i) output[i] *= factor[i / 2 % 2];
}

}  // namespace annulus::kernels::cuda
