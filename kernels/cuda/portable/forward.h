// SPDX-License-Identifier: Apache-2.0
#pragma once

// The portable forward pass: one block walks a tile of queries over the tiles of keys
// (FlashAttention-2, arXiv 2307.08691), starting from the (o, lse) that is there. In float32 with
// plain multiply-adds, for every dtype and head size: the slow twin of the tuned kernels.
//
// Scores are kept in units of log2, so that a weight is one exp2. The maximum is the row's own; the
// sum is spread over the 16 threads of the row and added up once, at the end.

#include <cmath>
#include <limits>

#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/portable/block_tile.h"
#include "kernels/softmax_state.h"

namespace annulus::kernels::cuda {

template <int kDim>
inline constexpr int kAttendSharedFloats = 3 * kTileFloats<kDim> + kWeightFloats<kDim>;

// What a thread keeps of its rows: `softmax.sum` is its own share, `max` that of the row.
template <int kDim>
struct AttendRows {
  SoftmaxState<float> softmax[kRowsEach<kDim>];
  bool touched[kRowsEach<kDim>];
  Output<kDim> output;
};

struct Exp2 {
  ANNULUS_HOST_DEVICE float operator()(float x) const { return std::exp2(x); }
};

// The state in (o, lse) as maximum lse, sum 1 and o itself. The identity's o is not read.
template <int kDim>
ANNULUS_KERNEL_INLINE void LoadState(const AttendParams& p, const WorkUnit& unit, const Tile& tile,
                                     int y, int x, AttendRows<kDim>& rows) {
  for (int i = 0; i < kRowsEach<kDim>; ++i) {
    const int row = y + kLanes * i;
    const int64_t at = tile.row + row + p.o_row_offset;
    rows.softmax[i] = SoftmaxState<float>();
    rows.touched[i] = false;
    float lse = -std::numeric_limits<float>::infinity();
    if (row < tile.rows) lse = RowStatAt(p.lse, unit.batch, at, unit.head);
    const bool empty = lse == -std::numeric_limits<float>::infinity();
    if (!empty) {
      rows.softmax[i].max = lse * kLog2E;
      rows.softmax[i].sum = x == 0 ? 1.0f : 0.0f;
    }
    for (int c = 0; c < kColumnsEach<kDim>; ++c) {
      const int column = x + kLanes * c;
      rows.output.at[i][c] =
          empty || column >= p.o.head_dim ? 0.0f : FloatRow(p.o, unit.batch, at, unit.head)[column];
    }
  }
}

// A row that saw no key, or none with a weight, keeps its bytes.
template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void StoreState(Thread& t, const AttendParams& p, const WorkUnit& unit,
                                      const Tile& tile, int y, int x,
                                      const AttendRows<kDim>& rows) {
  for (int i = 0; i < kRowsEach<kDim>; ++i) {
    const int row = y + kLanes * i;
    const int64_t at = tile.row + row + p.o_row_offset;
    const float sum = LaneSum(t, rows.softmax[i].sum, kLanes);
    if (row >= tile.rows || !rows.touched[i] || sum == 0.0f) continue;
    const float inverse = 1.0f / sum;
    float* o = FloatRow(p.o, unit.batch, at, unit.head);
    for (int c = 0; c < kColumnsEach<kDim>; ++c) {
      const int column = x + kLanes * c;
      if (column < p.o.head_dim) o[column] = rows.output.at[i][c] * inverse;
    }
    if (x == 0) {
      RowStatAt(p.lse, unit.batch, at, unit.head) = rows.softmax[i].max * kLn2 + std::log(sum);
    }
  }
}

// Scores become weights relative to the raised maxima; what was summed before is scaled down.
template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void ScoresToWeights(Thread& t, float scale_log2,
                                           const Interval (&visible)[kRowsEach<kDim>], int x,
                                           AttendRows<kDim>& rows, Scores<kDim>& scores) {
  for (int i = 0; i < kRowsEach<kDim>; ++i) {
    float largest = -std::numeric_limits<float>::infinity();
    for (int j = 0; j < kRowsEach<kDim>; ++j) {
      scores.at[i][j] *= scale_log2;
      if (visible[i].Holds(x + kLanes * j) && scores.at[i][j] > largest) {
        largest = scores.at[i][j];
      }
    }
    const float factor = RaiseMax(rows.softmax[i], RowMax(t, largest), Exp2());
    const float max = SafeMax(rows.softmax[i].max);
    for (int j = 0; j < kRowsEach<kDim>; ++j) {
      scores.at[i][j] = visible[i].Holds(x + kLanes * j) ? Exp2()(scores.at[i][j] - max) : 0.0f;
      rows.softmax[i].sum += scores.at[i][j];
    }
    for (int c = 0; c < kColumnsEach<kDim>; ++c) rows.output.at[i][c] *= factor;
    rows.touched[i] = rows.touched[i] || !visible[i].Empty();
  }
}

template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void Attend(Thread& t, const AttendParams& p) {
  float* const q = t.shared();
  float* const k = q + kTileFloats<kDim>;
  float* const v = k + kTileFloats<kDim>;
  float* const weights = v + kTileFloats<kDim>;
  const int y = t.thread() / kLanes;
  const int x = t.thread() % kLanes;
  WorkUnit unit = UnitOfBlock(t.block(), p.q.heads, p.q.batch);
  unit.tile = p.q_segments.tiles - 1 - unit.tile;  // causal: the longest first
  const int64_t kv_head = unit.head / (p.q.heads / p.k.heads);
  const Tile queries = TileAt(p.q_segments, unit.tile);
  const int head_dim = static_cast<int>(p.q.head_dim);

  AttendRows<kDim> rows;
  LoadState(p, unit, queries, y, x, rows);
  LoadTile<kDim>(t, p.q, unit.batch, unit.head, queries, KeepAll(), q);
  for (int64_t n = 0; n < p.kv_segments.tiles; ++n) {
    const Tile keys = TileAt(p.kv_segments, n);
    if (SeesNothing(p.mask, queries, keys)) continue;
    t.Sync();  // the tile before is no longer read
    LoadTile<kDim>(t, p.k, unit.batch, kv_head, keys, KeepAll(), k);
    LoadTile<kDim>(t, p.v, unit.batch, kv_head, keys, KeepAll(), v);
    t.Sync();
    Interval visible[kRowsEach<kDim>];
    for (int i = 0; i < kRowsEach<kDim>; ++i) {
      const int row = y + kLanes * i;
      visible[i] =
          row < queries.rows ? VisibleKeys(p.mask, queries.PositionOf(row), keys) : Interval{0, 0};
    }
    Scores<kDim> scores;
    RowProducts(q, k, y, x, head_dim, scores);
    ScoresToWeights(t, p.softmax_scale * kLog2E, visible, x, rows, scores);
    StoreWeights(scores, y, x, weights);
    t.SyncWarp();  // a row's weights are written and read by the same half warp
    AddWeightedRows(weights, v, visible, y, x, keys.rows, rows.output);
  }
  StoreState(t, p, unit, queries, y, x, rows);
}

}  // namespace annulus::kernels::cuda
