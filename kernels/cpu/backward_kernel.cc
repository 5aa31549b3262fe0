// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/backward_kernel.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/backward_kernel.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/arithmetic-inl.h"
#include "kernels/cpu/exp2-inl.h"
#include "kernels/cpu/group_range-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/softmax_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

// What the three products of a pair share: the weights and score gradients, zero wherever a row
// may not see a key, and which keys each row sees.
struct Pair {
  const BackwardQueries& queries;
  const BackwardKeys& keys;
  const BackwardScratch& scratch;
  int64_t head_dim;
  int64_t key_count = 0;                          // padded to whole groups and panels
  bool masked = false;                            // some row may not see some key
  IndexRange visible[kQueryBlock] = {};           // keys, by row
  IndexRange seeing[kKeyTile / kMicroRows] = {};  // rows, by group of keys
};

bool FindVisible(const annulusMask& mask, Pair& pair) {
  const int64_t rows = pair.queries.count;
  if (!VisibleKeysOfRows(mask, pair.queries.positions, rows, pair.keys.positions, pair.keys.count,
                         pair.visible)) {
    return false;
  }
  bool any = false;
  for (int64_t i = 0; i < rows; ++i) {
    if (pair.queries.lse.At(i) == -std::numeric_limits<float>::infinity()) pair.visible[i] = {};
    any |= pair.visible[i].size() > 0;
    pair.masked |= pair.visible[i].size() != pair.keys.count;
  }
  return any;
}

// Sets `seeing` from `visible`.
template <int kRows>
void FindSeeing(Pair& pair) {
  const int64_t groups = CeilDiv(pair.keys.count, kRows);
  if (!pair.masked) {
    std::fill(pair.seeing, pair.seeing + groups, IndexRange{0, pair.queries.count});
    return;
  }
  for (int64_t i = 0; i < pair.queries.count; ++i) {
    const IndexRange& visible = pair.visible[i];
    if (visible.size() == 0) continue;
    const int64_t last = (visible.end - 1) / kRows;
    for (int64_t group = visible.begin / kRows; group <= last; ++group) {
      IndexRange& rows = pair.seeing[group];
      if (rows.size() == 0) rows.begin = i;
      rows.end = i + 1;
    }
  }
}

// What the weights and score gradients of one row are made of, vectors of one value.
struct RowFactors {
  FloatVec score_factor;
  FloatVec lse;  // times log2(e)
  FloatVec delta;
  IndexRange visible;
};

RowFactors FactorsOfRow(const Pair& pair, float score_factor, int64_t row) {
  const FloatTag d;
  const bool real = row < pair.queries.count;
  const float lse = real ? pair.queries.lse.At(row) : 0.0f;
  const float delta = real ? pair.queries.delta.At(row) : 0.0f;
  return {hn::Set(d, score_factor), hn::Set(d, static_cast<float>(lse * kLog2E)), hn::Set(d, delta),
          pair.visible[row]};
}

// weights = 2^(factor * score - lse), d_scores = weights * (d_weights - delta) in a panel of keys
// from `key` on, zero where they are not visible.
HWY_INLINE void DifferentiatePanel(const RowFactors& row, int64_t key, const float* scores,
                                   const float* d_weights, FloatVec (&weights)[kVectors],
                                   FloatVec (&d_scores)[kVectors]) {
  const FloatTag d;
  for (int n = 0; n < kVectors; ++n) {
    const FloatVec score = hn::Load(d, scores + n * kLanes);
    weights[n] = Exp2(d, hn::MulSub(score, row.score_factor, row.lse));
    d_scores[n] = hn::Mul(weights[n], hn::Sub(hn::Load(d, d_weights + n * kLanes), row.delta));
  }
  if (key >= row.visible.begin && key + kPanelWidth <= row.visible.end) return;
  for (int n = 0; n < kVectors; ++n) {
    const auto inside = LanesInside(row.visible, key + n * kLanes);
    weights[n] = hn::IfThenElseZero(inside, weights[n]);
    d_scores[n] = hn::IfThenElseZero(inside, d_scores[n]);
  }
}

// Weights and score gradients of the rows that an arithmetic stores together, from row `first` + m
// of the block on; `first` begins a group. On entry `scores` and `d_weights` are those of the group
// in the panels `keys`.
template <class Arithmetic>
void DifferentiateRows(const Pair& pair, float score_factor, int64_t first, int64_t m,
                       IndexRange keys, const float* scores, const float* d_weights) {
  constexpr int kTogether = Arithmetic::kRowsTogether;
  RowFactors rows[kTogether];
  IndexRange panels = {keys.end, keys.begin};
  for (int t = 0; t < kTogether; ++t) {
    rows[t] = FactorsOfRow(pair, score_factor, first + m + t * Arithmetic::kRowsApart);
    if (rows[t].visible.size() == 0) continue;
    const IndexRange own = PanelsOf(rows[t].visible);
    panels = {std::min(panels.begin, own.begin), std::max(panels.end, own.end)};
  }
  const FloatVec zero = hn::Zero(FloatTag());
  constexpr int64_t kRowsOfScores = Arithmetic::kRowsApart * Arithmetic::kRowStride;
  typename Arithmetic::Gradients gradients(pair.scratch, first, m);
  int64_t at = m * Arithmetic::kRowStride;
  for (int64_t j = 0; j < pair.key_count; j += kPanelWidth) {
    FloatVec weights[kTogether][kVectors];
    FloatVec d_scores[kTogether][kVectors];
    for (int t = 0; t < kTogether; ++t) {
      if (j < panels.begin || j >= panels.end) {
        std::fill(weights[t], weights[t] + kVectors, zero);
        std::fill(d_scores[t], d_scores[t] + kVectors, zero);
        continue;
      }
      const int64_t row = at + t * kRowsOfScores;
      DifferentiatePanel(rows[t], j, scores + row, d_weights + row, weights[t], d_scores[t]);
    }
    gradients.Append(weights, d_scores);
    at += Arithmetic::InScores(kPanelWidth);
  }
}

// The weights and score gradients of the group of rows from `first` on, as the products take them.
// Returns the rows of score gradients.
template <class Arithmetic>
const float* DifferentiateGroup(const Arithmetic& arithmetic, const Pair& pair, float softmax_scale,
                                int64_t first) {
  const IndexRange keys = PanelsOf(RangeOfGroup<Arithmetic::kRows>(pair.visible + first).keys);
  const int64_t strip = first * Arithmetic::Words(pair.head_dim);
  float* scores = Arithmetic::GroupOf(pair.scratch.weights, pair.scratch.group_scores, first);
  float* d_scores = Arithmetic::GroupOf(pair.scratch.d_scores, pair.scratch.group_d_scores, first);
  arithmetic.StripTimesColumns(pair.queries.q_strips + strip, pair.keys.k_columns, pair.head_dim,
                               keys.begin, keys.end, scores);
  arithmetic.StripTimesColumns(pair.queries.do_strips + strip, pair.keys.v_columns, pair.head_dim,
                               keys.begin, keys.end, d_scores);
  const float factor = Arithmetic::ScoreFactor(softmax_scale);
  for (int64_t m = 0; m < Arithmetic::kRows; ++m) {
    if (Arithmetic::IsStoredWithEarlier(m)) continue;
    DifferentiateRows<Arithmetic>(pair, factor, first, m, keys, scores, d_scores);
  }
  return d_scores;
}

// to[row] += factor * from[row] for every row; rows of `from` are padded.
void AddSumsToRows(const float* from, float factor, const HeadRows& to) {
  const int64_t stride = PaddedHeadDim(to.head_dim);
  for (int64_t i = 0; i < to.count; ++i) {
    float* row = to.FloatRow(i);
    PrefetchRow(to, i + kRowsAhead);
    for (int64_t c = 0; c < to.head_dim; ++c) row[c] += factor * from[i * stride + c];
  }
}

// The sums for dq += d_scores . K for the group of rows from `first` on.
template <class Arithmetic>
void AddQueryGradient(const Arithmetic& arithmetic, const Pair& pair, int64_t first,
                      const float* d_scores) {
  const int64_t stride = PaddedHeadDim(pair.head_dim);
  const IndexRange keys = RangeOfGroup<Arithmetic::kRows>(pair.visible + first).keys;
  if (keys.size() == 0) return;
  for (int64_t c = 0; c < pair.head_dim; c += kPanelWidth) {
    const float* panel = pair.keys.k_panels + c / kPanelWidth * Arithmetic::PanelFloats(kKeyTile);
    arithmetic.RowsTimesPanel(d_scores, keys, panel, pair.head_dim - c, nullptr,
                              pair.queries.dq_sums + first * stride + c, stride);
  }
}

// sums += columns^T . queries, `columns` being those of the weights or of d_scores.
template <class Arithmetic>
void AddKeyGradient(const Arithmetic& arithmetic, const Pair& pair, const float* columns,
                    const float* queries, float* sums) {
  constexpr int kRows = Arithmetic::kRows;
  if constexpr (Arithmetic::kSumsAreTransposed) {
    for (int64_t first = 0; first < pair.keys.count; first += kPanelWidth) {
      const IndexRange rows = pair.seeing[first / kRows];
      if (rows.size() == 0) continue;
      for (int64_t c = 0; c < pair.head_dim; c += kRows) {
        arithmetic.DimensionsTimesColumns(queries + c * Arithmetic::kDimensionStride, rows, columns,
                                          first, sums + c * kKeyTile + first, kKeyTile);
      }
    }
  } else {
    const int64_t stride = PaddedHeadDim(pair.head_dim);
    for (int64_t first = 0; first < pair.keys.count; first += kRows) {
      const IndexRange rows = pair.seeing[first / kRows];
      if (rows.size() == 0) continue;
      for (int64_t c = 0; c < pair.head_dim; c += kPanelWidth) {
        const float* panel =
            queries + c / kPanelWidth * Arithmetic::PanelFloats(Arithmetic::kBlockRows);
        arithmetic.ColumnsTimesPanel(columns, first, rows, panel, pair.head_dim - c,
                                     sums + first * stride + c, stride);
      }
    }
  }
}

// The three products pair by pair over visible pairs only, for blocks where a NaN or an infinity
// must not meet the zero weight of a masked pair. Slow and rare.
template <class Arithmetic>
void AddGradientsOfVisiblePairs(const Pair& pair, float softmax_scale) {
  const float query_factor = Arithmetic::QueryFactor(softmax_scale);
  for (int64_t i = 0; i < pair.queries.count; ++i) {
    float* dq = pair.queries.dq.FloatRow(i);
    for (int64_t j = pair.visible[i].begin; j < pair.visible[i].end; ++j) {
      const float weight = Arithmetic::InColumns(pair.scratch.weights, i, j);
      const float d_score = Arithmetic::InColumns(pair.scratch.d_scores, i, j);
      float* dk = pair.keys.dk.FloatRow(j);
      float* dv = pair.keys.dv.FloatRow(j);
      for (int64_t c = 0; c < pair.head_dim; ++c) {
        dq[c] += softmax_scale * d_score * Arithmetic::InKeyPanels(pair.keys.k_panels, j, c);
        dk[c] += query_factor * d_score * Arithmetic::InQueryPanels(pair.queries.q_panels, i, c);
        dv[c] += weight * Arithmetic::InQueryPanels(pair.queries.do_panels, i, c);
      }
    }
  }
}

template <class Arithmetic>
void AttendBackwardPairOver(const Arithmetic& arithmetic, Pair& pair, float softmax_scale) {
  constexpr int kRows = Arithmetic::kRows;
  pair.key_count = RoundUp(RoundUp(pair.keys.count, kRows), kPanelWidth);
  FindSeeing<kRows>(pair);
  const bool by_pairs = pair.masked && !(pair.queries.finite && pair.keys.finite);
  for (int64_t first = 0; first < pair.queries.count; first += kRows) {
    const float* d_scores = DifferentiateGroup(arithmetic, pair, softmax_scale, first);
    if (!by_pairs) AddQueryGradient(arithmetic, pair, first, d_scores);
  }
  const BackwardScratch& scratch = pair.scratch;
  if (by_pairs) {
    AddGradientsOfVisiblePairs<Arithmetic>(pair, softmax_scale);
    return;
  }
  AddKeyGradient(arithmetic, pair, scratch.d_scores, pair.queries.q_panels, pair.keys.dk_sums);
  AddKeyGradient(arithmetic, pair, scratch.weights, pair.queries.do_panels, pair.keys.dv_sums);
}

void AttendBackwardPairImpl(const BackwardQueries& queries, const BackwardKeys& keys,
                            const annulusMask& mask, float softmax_scale,
                            const ArithmeticChoice& choice, const BackwardScratch& scratch) {
  Pair pair = {queries, keys, scratch, queries.dq.head_dim};
  if (!FindVisible(mask, pair)) return;
  WithArithmetic(choice, [&](const auto& arithmetic) {
    AttendBackwardPairOver(arithmetic, pair, softmax_scale);
  });
}

// to += factor * the sums over queries of a key tile.
template <class Arithmetic>
void AddKeySums(const float* sums, float factor, float* staging, const HeadRows& to) {
  if constexpr (Arithmetic::kSumsAreTransposed) {
    TransposeBlock(sums, kKeyTile, to.head_dim, kKeyTile, staging, PaddedHeadDim(to.head_dim));
    AddSumsToRows(staging, factor, to);
  } else {
    AddSumsToRows(sums, factor, to);
  }
}

void FinishBackwardKeysImpl(const BackwardKeys& keys, float softmax_scale,
                            const ArithmeticChoice& choice, float* staging) {
  WithArithmetic(choice, [&]<class Arithmetic>(const Arithmetic&) {
    AddKeySums<Arithmetic>(keys.dk_sums, Arithmetic::QueryFactor(softmax_scale), staging, keys.dk);
    AddKeySums<Arithmetic>(keys.dv_sums, 1.0f, staging, keys.dv);
  });
}

void FinishBackwardQueriesImpl(const BackwardQueries& queries, float softmax_scale) {
  AddSumsToRows(queries.dq_sums, softmax_scale, queries.dq);
}

int64_t BackwardBlockRowsImpl(const ArithmeticChoice& choice) {
  int64_t rows = 0;
  WithArithmetic(choice,
                 [&]<class Arithmetic>(const Arithmetic&) { rows = Arithmetic::kBlockRows; });
  return rows;
}

void PackBackwardKeysImpl(const HeadRows& k, const HeadRows& v, const ArithmeticChoice& choice,
                          float* staging, BackwardKeys* keys) {
  const int64_t rows = PanelCeil(k.count);
  WithArithmetic(choice, [&]<class Arithmetic>(const Arithmetic&) {
    keys->finite = !Arithmetic::Load(k, rows, staging);
    Arithmetic::KeyColumns(staging, rows, k.head_dim, keys->k_columns);
    Arithmetic::KeyPanels(staging, rows, k.head_dim, keys->k_panels);
    Arithmetic::Load(v, rows, staging);
    Arithmetic::KeyColumns(staging, rows, k.head_dim, keys->v_columns);
  });
  const int64_t sums = kKeyTile * PaddedHeadDim(k.head_dim);
  std::fill(keys->dk_sums, keys->dk_sums + sums, 0.0f);
  std::fill(keys->dv_sums, keys->dv_sums + sums, 0.0f);
}

void PackBackwardQueriesImpl(const HeadRows& q, const HeadRows& d_o, float softmax_scale,
                             const ArithmeticChoice& choice, float* staging,
                             BackwardQueries* queries) {
  WithArithmetic(choice, [&]<class Arithmetic>(const Arithmetic&) {
    const int64_t rows = RoundUp(q.count, Arithmetic::kRows);
    const bool q_poisoned = Arithmetic::LoadQueries(q, softmax_scale, rows, staging);
    Arithmetic::Strips(staging, rows, q.head_dim, queries->q_strips);
    Arithmetic::QueryPanels(staging, rows, q.head_dim, queries->q_panels);
    const bool do_poisoned = Arithmetic::Load(d_o, rows, staging);
    Arithmetic::Strips(staging, rows, q.head_dim, queries->do_strips);
    Arithmetic::QueryPanels(staging, rows, q.head_dim, queries->do_panels);
    queries->finite = !q_poisoned && !do_poisoned;
    std::fill(queries->dq_sums, queries->dq_sums + rows * PaddedHeadDim(q.head_dim), 0.0f);
  });
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace annulus::kernels::cpu {

HWY_EXPORT(AttendBackwardPairImpl);
HWY_EXPORT(BackwardBlockRowsImpl);
HWY_EXPORT(PackBackwardKeysImpl);
HWY_EXPORT(PackBackwardQueriesImpl);
HWY_EXPORT(FinishBackwardKeysImpl);
HWY_EXPORT(FinishBackwardQueriesImpl);

void AttendBackwardPair(const BackwardQueries& queries, const BackwardKeys& keys,
                        const annulusMask& mask, float softmax_scale,
                        const ArithmeticChoice& choice, const BackwardScratch& scratch) {
  HWY_DYNAMIC_DISPATCH(AttendBackwardPairImpl)
  (queries, keys, mask, softmax_scale, choice, scratch);
}

int64_t BackwardBlockRows(const ArithmeticChoice& choice) {
  return HWY_DYNAMIC_DISPATCH(BackwardBlockRowsImpl)(choice);
}

void PackBackwardKeys(const HeadRows& k, const HeadRows& v, const ArithmeticChoice& choice,
                      float* staging, BackwardKeys* keys) {
  HWY_DYNAMIC_DISPATCH(PackBackwardKeysImpl)(k, v, choice, staging, keys);
}

void PackBackwardQueries(const HeadRows& q, const HeadRows& d_o, float softmax_scale,
                         const ArithmeticChoice& choice, float* staging, BackwardQueries* queries) {
  HWY_DYNAMIC_DISPATCH(PackBackwardQueriesImpl)(q, d_o, softmax_scale, choice, staging, queries);
}

void FinishBackwardKeys(const BackwardKeys& keys, float softmax_scale,
                        const ArithmeticChoice& choice, float* staging) {
  HWY_DYNAMIC_DISPATCH(FinishBackwardKeysImpl)(keys, softmax_scale, choice, staging);
}

void FinishBackwardQueries(const BackwardQueries& queries, float softmax_scale) {
  HWY_DYNAMIC_DISPATCH(FinishBackwardQueriesImpl)(queries, softmax_scale);
}

}  // namespace annulus::kernels::cpu
#endif  // HWY_ONCE
