// SPDX-License-Identifier: Apache-2.0
#pragma once

// The portable backward pass, in two kernels so that every sum has one owner and one order: no
// atomics, the same bits every time. With p = exp(s - lse) and ds = p (dp - delta):
//   QueryGradients   dq += scale sum over keys ds k            one block a tile of queries
//   KeyGradients     dk += scale sum over queries ds q,        one block a tile of keys; it walks
//                    dv += sum over queries p do               over all query heads of its KV head
// In float32 with plain multiply-adds, for every dtype and head size.

#include <cmath>
#include <limits>

#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/portable/block_tile.h"

namespace annulus::kernels::cuda {

// Four tiles, the weights, and lse and delta of a tile of queries.
template <int kDim>
inline constexpr int kBackwardSharedFloats =
    4 * kTileFloats<kDim> + kWeightFloats<kDim> + 2 * kTileRows<kDim>;

template <int kDim>
struct BackwardShared {
  float* q;
  float* d_o;
  float* k;
  float* v;
  float* weights;
  float* lse;  // in units of log2; -inf: the row contributes nothing
  float* delta;

  ANNULUS_KERNEL_INLINE explicit BackwardShared(float* shared)
      : q(shared),
        d_o(q + kTileFloats<kDim>),
        k(d_o + kTileFloats<kDim>),
        v(k + kTileFloats<kDim>),
        weights(v + kTileFloats<kDim>),
        lse(weights + kWeightFloats<kDim>),
        delta(lse + kTileRows<kDim>) {}
};

// Rows of q whose lse is -inf are left zero: nothing of them reaches a sum.
struct KeepAlive {
  const float* lse;
  ANNULUS_HOST_DEVICE bool operator()(int row) const {
    return lse[row] != -std::numeric_limits<float>::infinity();
  }
};

// Loads lse, delta, q and do of a tile of queries. Syncs between the two; the caller syncs before
// (the tile before is no longer read) and after.
template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void LoadQueries(Thread& t, const BackwardParams& p, int64_t batch,
                                       int64_t head, const Tile& tile,
                                       const BackwardShared<kDim>& shared) {
  for (int row = t.thread(); row < kTileRows<kDim>; row += kBlockThreads) {
    const int64_t at = tile.row + row + p.dq_row_offset;
    const bool real = row < tile.rows;
    shared.lse[row] =
        real ? RowStatAt(p.lse, batch, at, head) * kLog2E : -std::numeric_limits<float>::infinity();
    shared.delta[row] = real ? RowStatAt(p.delta, batch, at, head) : 0.0f;
  }
  t.Sync();
  LoadTile<kDim>(t, p.q, batch, head, tile, KeepAlive{shared.lse}, shared.q);
  LoadTile<kDim>(t, p.d_o, batch, head, tile, KeepAlive{shared.lse}, shared.d_o);
}

// p of a visible pair, from its score before scaling.
ANNULUS_KERNEL_INLINE float PairWeight(float score, float scale_log2, float lse_log2) {
  return std::exp2(score * scale_log2 - lse_log2);
}

// to[x + 16 c] += factor * sums[i][c], for the rows that are there.
template <int kDim>
ANNULUS_KERNEL_INLINE void AddToRows(const annulusTensor& to, int64_t batch, int64_t head,
                                     int64_t first_row, int rows, int y, int x, float factor,
                                     const Output<kDim>& sums) {
  for (int i = 0; i < kRowsEach<kDim>; ++i) {
    const int row = y + kLanes * i;
    if (row >= rows) continue;
    float* out = FloatRow(to, batch, first_row + row, head);
    for (int c = 0; c < kColumnsEach<kDim>; ++c) {
      const int column = x + kLanes * c;
      if (column < to.head_dim) out[column] += factor * sums.at[i][c];
    }
  }
}

template <int kDim>
ANNULUS_KERNEL_INLINE void Clear(Output<kDim>& output) {
  for (int i = 0; i < kRowsEach<kDim>; ++i) {
    for (int c = 0; c < kColumnsEach<kDim>; ++c) output.at[i][c] = 0.0f;
  }
}

template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void QueryGradients(Thread& t, const BackwardParams& p) {
  const BackwardShared<kDim> shared(t.shared());
  const int y = t.thread() / kLanes;
  const int x = t.thread() % kLanes;
  WorkUnit unit = UnitOfBlock(t.block(), p.q.heads, p.q.batch);
  unit.tile = p.q_segments.tiles - 1 - unit.tile;  // causal: the longest first
  const int64_t kv_head = unit.head / (p.q.heads / p.k.heads);
  const Tile queries = TileAt(p.q_segments, unit.tile);
  const int head_dim = static_cast<int>(p.q.head_dim);
  const float scale_log2 = p.softmax_scale * kLog2E;

  Output<kDim> dq;
  Clear(dq);
  LoadQueries(t, p, unit.batch, unit.head, queries, shared);
  for (int64_t n = 0; n < p.kv_segments.tiles; ++n) {
    const Tile keys = TileAt(p.kv_segments, n);
    if (SeesNothing(p.mask, queries, keys)) continue;
    t.Sync();
    LoadTile<kDim>(t, p.k, unit.batch, kv_head, keys, KeepAll(), shared.k);
    LoadTile<kDim>(t, p.v, unit.batch, kv_head, keys, KeepAll(), shared.v);
    t.Sync();
    Scores<kDim> scores;
    Scores<kDim> d_weights;
    RowProducts(shared.q, shared.k, y, x, head_dim, scores);
    RowProducts(shared.d_o, shared.v, y, x, head_dim, d_weights);
    Interval visible[kRowsEach<kDim>];
    for (int i = 0; i < kRowsEach<kDim>; ++i) {
      const int row = y + kLanes * i;
      visible[i] = KeepAlive{shared.lse}(row) ? VisibleKeys(p.mask, queries.PositionOf(row), keys)
                                              : Interval{0, 0};
      for (int j = 0; j < kRowsEach<kDim>; ++j) {
        scores.at[i][j] = visible[i].Holds(x + kLanes * j)
                              ? PairWeight(scores.at[i][j], scale_log2, shared.lse[row]) *
                                    (d_weights.at[i][j] - shared.delta[row])
                              : 0.0f;
      }
    }
    StoreWeights(scores, y, x, shared.weights);
    t.SyncWarp();  // a row's weights are written and read by the same half warp
    AddWeightedRows(shared.weights, shared.k, visible, y, x, keys.rows, dq);
  }
  AddToRows(p.dq, unit.batch, unit.head, queries.row + p.dq_row_offset, queries.rows, y, x,
            p.softmax_scale, dq);
}

// One tile of queries of one head against the block's keys: adds to dk (before scaling) and dv.
template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void AddKeyGradients(Thread& t, const BackwardParams& p,
                                           const BackwardShared<kDim>& shared, const Tile& queries,
                                           const Tile& keys, int y, int x, Output<kDim>& dk,
                                           Output<kDim>& dv) {
  const int head_dim = static_cast<int>(p.q.head_dim);
  const float scale_log2 = p.softmax_scale * kLog2E;
  Scores<kDim> weights;
  Scores<kDim> d_scores;
  RowProducts(shared.k, shared.q, y, x, head_dim, weights);
  RowProducts(shared.v, shared.d_o, y, x, head_dim, d_scores);
  Interval visible[kRowsEach<kDim>];
  for (int i = 0; i < kRowsEach<kDim>; ++i) {
    const int row = y + kLanes * i;
    visible[i] =
        row < keys.rows ? VisibleQueries(p.mask, keys.PositionOf(row), queries) : Interval{0, 0};
    for (int j = 0; j < kRowsEach<kDim>; ++j) {
      const int query = x + kLanes * j;
      const bool counts = visible[i].Holds(query) && KeepAlive{shared.lse}(query);
      const float weight =
          counts ? PairWeight(weights.at[i][j], scale_log2, shared.lse[query]) : 0.0f;
      d_scores.at[i][j] = counts ? weight * (d_scores.at[i][j] - shared.delta[query]) : 0.0f;
      weights.at[i][j] = weight;
    }
  }
  // A row's weights are written and read by the same half warp.
  StoreWeights(weights, y, x, shared.weights);
  t.SyncWarp();
  AddWeightedRows(shared.weights, shared.d_o, visible, y, x, queries.rows, dv);
  t.SyncWarp();
  StoreWeights(d_scores, y, x, shared.weights);
  t.SyncWarp();
  AddWeightedRows(shared.weights, shared.q, visible, y, x, queries.rows, dk);
}

template <int kDim, class Thread>
ANNULUS_KERNEL_INLINE void KeyGradients(Thread& t, const BackwardParams& p) {
  const BackwardShared<kDim> shared(t.shared());
  const int y = t.thread() / kLanes;
  const int x = t.thread() % kLanes;
  const WorkUnit unit = UnitOfBlock(t.block(), p.k.heads, p.k.batch);
  const int64_t group = p.q.heads / p.k.heads;
  const Tile keys = TileAt(p.kv_segments, unit.tile);

  Output<kDim> dk;
  Output<kDim> dv;
  Clear(dk);
  Clear(dv);
  LoadTile<kDim>(t, p.k, unit.batch, unit.head, keys, KeepAll(), shared.k);
  LoadTile<kDim>(t, p.v, unit.batch, unit.head, keys, KeepAll(), shared.v);
  for (int64_t head = unit.head * group; head < (unit.head + 1) * group; ++head) {
    for (int64_t n = 0; n < p.q_segments.tiles; ++n) {
      const Tile queries = TileAt(p.q_segments, n);
      if (SeesNothing(p.mask, queries, keys)) continue;
      t.Sync();  // the tile before is no longer read
      LoadQueries(t, p, unit.batch, head, queries, shared);
      t.Sync();
      AddKeyGradients(t, p, shared, queries, keys, y, x, dk, dv);
    }
  }
  AddToRows(p.dk, unit.batch, unit.head, keys.row + p.dkv_row_offset, keys.rows, y, x,
            p.softmax_scale, dk);
  AddToRows(p.dv, unit.batch, unit.head, keys.row + p.dkv_row_offset, keys.rows, y, x, 1.0f, dv);
}

}  // namespace annulus::kernels::cuda
