// SPDX-License-Identifier: Apache-2.0
#pragma once

// The portable forward pass on the matrix units, for bf16 and f16 and head sizes up to 128: the
// same walk as portable/forward.h, a warp for 16 queries. Weights are rounded to the input's format
// before they meet the values; sums and the state stay float32.
//
// The matrix units multiply what is masked by zero, and zero times NaN is NaN. A tile with a value
// that is not finite is therefore summed up without them.

#include <cmath>
#include <limits>

#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/portable/block_tile.h"
#include "kernels/cuda/portable/forward.h"
#include "kernels/cuda/portable/matrix_tile.h"
#include "kernels/softmax_state.h"

namespace annulus::kernels::cuda {

// q and k by rows, v transposed.
template <int kDim>
inline constexpr int kAttendMatrixSharedBytes = 2 * (2 * kMatrixRows * kMatrixPitch<kDim> +
                                                     kDim * kTransposedPitch);

inline constexpr int kQuad = 4;  // threads of a row

// A thread's share: columns 8 n + 2t, 2t + 1 of its two rows.
template <int kDim>
struct MatrixRows {
  SoftmaxState<float> softmax[2];
  bool touched[2];
  float output[kDim / 8][4];  // [n][row * 2 + column]
};
struct MatrixScores {
  float at[kKeyBlocks][4];
};

// Where a thread's rows are in the output; rows beyond the tile are not there.
struct OwnRows {
  int t;  // place in the quad
  int row[2];
  bool there[2];
  int64_t at[2];

  ANNULUS_KERNEL_INLINE OwnRows(int thread, const Tile& tile, int64_t row_offset)
      : t(thread % kQuad) {
    ANNULUS_UNROLL
    for (int r = 0; r < 2; ++r) {
      row[r] = thread / 32 * 16 + thread % 32 / kQuad + 8 * r;
      there[r] = row[r] < tile.rows;
      at[r] = tile.row + row[r] + row_offset;
    }
  }
};

template <int kDim>
ANNULUS_KERNEL_INLINE void LoadMatrixState(const AttendParams& p, const WorkUnit& unit,
                                           const OwnRows& own, MatrixRows<kDim>& rows) {
  ANNULUS_UNROLL
  for (int r = 0; r < 2; ++r) {
    float lse = -std::numeric_limits<float>::infinity();
    if (own.there[r]) lse = RowStatAt(p.lse, unit.batch, own.at[r], unit.head);
    const bool empty = lse == -std::numeric_limits<float>::infinity();
    rows.softmax[r] = SoftmaxState<float>();
    rows.touched[r] = false;
    if (!empty) {
      rows.softmax[r].max = lse * kLog2E;
      rows.softmax[r].sum = own.t == 0 ? 1.0f : 0.0f;
    }
    ANNULUS_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      ANNULUS_UNROLL
      for (int e = 0; e < 2; ++e) {
        const int column = 8 * n + 2 * own.t + e;
        rows.output[n][2 * r + e] = empty || column >= p.o.head_dim
                                        ? 0.0f
                                        : FloatRow(p.o, unit.batch, own.at[r], unit.head)[column];
      }
    }
  }
}

template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void StoreMatrixState(Thread& t, const AttendParams& p, const WorkUnit& unit,
                                            const OwnRows& own, const MatrixRows<kDim>& rows) {
  ANNULUS_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float sum = LaneSum(t, rows.softmax[r].sum, kQuad);
    if (!own.there[r] || !rows.touched[r] || sum == 0.0f) continue;
    const float inverse = 1.0f / sum;
    float* o = FloatRow(p.o, unit.batch, own.at[r], unit.head);
    ANNULUS_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      ANNULUS_UNROLL
      for (int e = 0; e < 2; ++e) {
        const int column = 8 * n + 2 * own.t + e;
        if (column < p.o.head_dim) o[column] = rows.output[n][2 * r + e] * inverse;
      }
    }
    if (own.t == 0) {
      RowStatAt(p.lse, unit.batch, own.at[r], unit.head) =
          rows.softmax[r].max * kLn2 + std::log(sum);
    }
  }
}

// scores = q k^T for the warp's 16 queries.
template <class Half, int kDim, class Thread>
ANNULUS_KERNEL_INLINE void MatrixProducts(Thread& t, const uint16_t* q, const uint16_t* k,
                                          const OwnRows& own, MatrixScores& scores) {
  constexpr int kPitch = kMatrixPitch<kDim>;
  const int g = t.thread() % 32 / kQuad;
  ANNULUS_UNROLL
  for (int n = 0; n < kKeyBlocks; ++n) {
    ANNULUS_UNROLL
    for (int e = 0; e < 4; ++e) scores.at[n][e] = 0.0f;
  }
  ANNULUS_UNROLL
  for (int c = 0; c < kDim; c += 16) {
    const uint16_t* const q0 = q + own.row[0] * kPitch + c + 2 * own.t;
    const uint16_t* const q1 = q + own.row[1] * kPitch + c + 2 * own.t;
    const uint32_t a[4] = {Pair(q0), Pair(q1), Pair(q0 + 8), Pair(q1 + 8)};
    ANNULUS_UNROLL
    for (int n = 0; n < kKeyBlocks; ++n) {
      const uint16_t* const key = k + (8 * n + g) * kPitch + c + 2 * own.t;
      const uint32_t b[2] = {Pair(key), Pair(key + 8)};
      t.template Mma<Half>(a, b, scores.at[n]);
    }
  }
}

template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void MatrixScoresToWeights(Thread& t, float scale_log2,
                                                 const Interval (&visible)[2], int quad_place,
                                                 MatrixRows<kDim>& rows, MatrixScores& scores) {
  ANNULUS_UNROLL
  for (int r = 0; r < 2; ++r) {
    float largest = -std::numeric_limits<float>::infinity();
    ANNULUS_UNROLL
    for (int n = 0; n < kKeyBlocks; ++n) {
      ANNULUS_UNROLL
      for (int e = 0; e < 2; ++e) {
        float& score = scores.at[n][2 * r + e];
        score *= scale_log2;
        if (visible[r].Holds(8 * n + 2 * quad_place + e) && score > largest) largest = score;
      }
    }
    ANNULUS_UNROLL
    for (int m = 1; m < kQuad; m *= 2) {
      const float other = t.ShuffleXor(largest, m);
      largest = other > largest ? other : largest;
    }
    const float factor = RaiseMax(rows.softmax[r], largest, Exp2());
    const float max = SafeMax(rows.softmax[r].max);
    ANNULUS_UNROLL
    for (int n = 0; n < kKeyBlocks; ++n) {
      ANNULUS_UNROLL
      for (int e = 0; e < 2; ++e) {
        float& score = scores.at[n][2 * r + e];
        score = visible[r].Holds(8 * n + 2 * quad_place + e) ? Exp2()(score - max) : 0.0f;
        rows.softmax[r].sum += score;
      }
    }
    ANNULUS_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      ANNULUS_UNROLL
      for (int e = 0; e < 2; ++e) rows.output[n][2 * r + e] *= factor;
    }
    rows.touched[r] = rows.touched[r] || !visible[r].Empty();
  }
}

// output += weights v, v transposed in shared memory.
template <class Half, int kDim, class Thread>
ANNULUS_KERNEL_INLINE void AddMatrixValues(Thread& t, const MatrixScores& weights,
                                           const uint16_t* v, int quad_place,
                                           MatrixRows<kDim>& rows) {
  const int g = t.thread() % 32 / kQuad;
  ANNULUS_UNROLL
  for (int n = 0; n < kKeyBlocks; n += 2) {
    const float(&first)[4] = weights.at[n];
    const float(&second)[4] = weights.at[n + 1];
    const uint32_t a[4] = {t.template RoundPair<Half>(first[0], first[1]),
                           t.template RoundPair<Half>(first[2], first[3]),
                           t.template RoundPair<Half>(second[0], second[1]),
                           t.template RoundPair<Half>(second[2], second[3])};
    ANNULUS_UNROLL
    for (int c = 0; c < kDim / 8; ++c) {
      const uint16_t* const value = v + (8 * c + g) * kTransposedPitch + 8 * n + 2 * quad_place;
      const uint32_t b[2] = {Pair(value), Pair(value + 8)};
      t.template Mma<Half>(a, b, rows.output[c]);
    }
  }
}

// The same without the matrix units, and only over visible keys. Rare, so it is kept small.
template <class Half, int kDim, class Thread>
ANNULUS_KERNEL_INLINE void AddVisibleValues(Thread& t, const MatrixScores& weights,
                                            const uint16_t* v, const Interval (&visible)[2],
                                            int quad_place, MatrixRows<kDim>& rows) {
  const int quad = t.thread() % 32 / kQuad * kQuad;
  ANNULUS_KEEP_ROLLED
  for (int key = 0; key < kMatrixRows; ++key) {
    // Row r's weight of the key is with the thread of the quad that has the key's column.
    float mine[2] = {0.0f, 0.0f};
    ANNULUS_UNROLL
    for (int n = 0; n < kKeyBlocks; ++n) {
      const float(&of_block)[4] = weights.at[n];
      const float first = key % 2 == 0 ? of_block[0] : of_block[1];
      const float second = key % 2 == 0 ? of_block[2] : of_block[3];
      mine[0] = n == key / 8 ? first : mine[0];
      mine[1] = n == key / 8 ? second : mine[1];
    }
    ANNULUS_UNROLL
    for (int r = 0; r < 2; ++r) {
      const float weight = t.ShuffleFrom(mine[r], quad + key % 8 / 2);
      if (!visible[r].Holds(key)) continue;
      ANNULUS_UNROLL
      for (int c = 0; c < kDim / 8; ++c) {
        ANNULUS_UNROLL
        for (int e = 0; e < 2; ++e) {
          const int column = 8 * c + 2 * quad_place + e;
          rows.output[c][2 * r + e] += weight * Half::ToFloat(v[column * kTransposedPitch + key]);
        }
      }
    }
  }
}

template <class Half, int kDim, class Thread>
ANNULUS_KERNEL_INLINE void AttendOnMatrixUnits(Thread& t, const AttendParams& p) {
  uint16_t* const q = reinterpret_cast<uint16_t*>(t.shared());
  uint16_t* const k = q + kMatrixRows * kMatrixPitch<kDim>;
  uint16_t* const v = k + kMatrixRows * kMatrixPitch<kDim>;
  WorkUnit unit = UnitOfBlock(t.block(), p.q.heads, p.q.batch);
  unit.tile = p.q_segments.tiles - 1 - unit.tile;  // causal: the longest first
  const int64_t kv_head = unit.head / (p.q.heads / p.k.heads);
  const Tile queries = TileAt(p.q_segments, unit.tile);
  const OwnRows own(t.thread(), queries, p.o_row_offset);
  const auto store_row = [](uint16_t* to) {
    return [to](int row, int column, const Eight& eight) {
      *reinterpret_cast<Eight*>(to + row * kMatrixPitch<kDim> + column) = eight;
    };
  };

  MatrixRows<kDim> rows;
  LoadMatrixState(p, unit, own, rows);
  ForEachEight<kDim>(t, p.q, unit.batch, unit.head, queries, store_row(q));
  for (int64_t index = 0; index < p.kv_segments.tiles; ++index) {
    const Tile keys = TileAt(p.kv_segments, index);
    if (SeesNothing(p.mask, queries, keys)) continue;
    t.Sync();  // the tile before is no longer read
    ForEachEight<kDim>(t, p.k, unit.batch, kv_head, keys, store_row(k));
    bool finite = true;
    ForEachEight<kDim>(t, p.v, unit.batch, kv_head, keys,
                       [&](int row, int column, const Eight& eight) {
                         for (int i = 0; i < 8; ++i) {
                           v[(column + i) * kTransposedPitch + row] = eight.at[i];
                           finite = finite && Half::Finite(eight.at[i]);
                         }
                       });
    const bool all_finite = !t.SyncOr(!finite);
    Interval visible[2];
    ANNULUS_UNROLL
    for (int r = 0; r < 2; ++r) {
      visible[r] =
          own.there[r] ? VisibleKeys(p.mask, queries.PositionOf(own.row[r]), keys) : Interval{0, 0};
    }
    MatrixScores scores;
    MatrixProducts<Half, kDim>(t, q, k, own, scores);
    MatrixScoresToWeights(t, p.softmax_scale * kLog2E, visible, own.t, rows, scores);
    if (all_finite) {
      AddMatrixValues<Half>(t, scores, v, own.t, rows);
    } else {
      AddVisibleValues<Half>(t, scores, v, visible, own.t, rows);
    }
  }
  StoreMatrixState(t, p, unit, own, rows);
}

}  // namespace annulus::kernels::cuda
