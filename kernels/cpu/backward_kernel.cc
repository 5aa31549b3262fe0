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
#include "kernels/cpu/exp2-inl.h"
#include "kernels/cpu/group_range-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr double kLog2E = 1.4426950408889634;
constexpr float kLn2 = 0.6931471805599453f;

// What the three products of a pair share: the weights and score gradients, zero wherever a row
// may not see a key, and which keys each row sees.
struct Pair {
  const BackwardQueries& queries;
  const BackwardKeys& keys;
  const BackwardScratch& scratch;
  int64_t head_dim;
  int64_t row_count;                                  // padded to whole groups
  int64_t key_count;                                  // padded to whole panels and groups
  bool masked = false;                                // some row may not see some key
  IndexRange visible[kQueryBlock] = {};               // keys, by row
  IndexRange seeing[kKeyTile / kMicroRows + 1] = {};  // rows, by group of kMicroRows keys
};

bool FindVisible(const annulusMask& mask, Pair& pair) {
  bool any = false;
  for (int64_t i = 0; i < pair.queries.count; ++i) {
    if (pair.queries.lse.At(i) == -std::numeric_limits<float>::infinity()) {
      pair.masked = true;
      continue;
    }
    pair.visible[i] =
        VisibleKeys(mask, pair.queries.positions[i], pair.keys.positions, pair.keys.count);
    any |= pair.visible[i].size() > 0;
    pair.masked |= pair.visible[i].size() != pair.keys.count;
  }
  return any;
}

// Sets `seeing` from `visible`.
void FindSeeing(Pair& pair) {
  const int64_t groups = (pair.keys.count + kMicroRows - 1) / kMicroRows;
  if (!pair.masked) {
    std::fill(pair.seeing, pair.seeing + groups, IndexRange{0, pair.queries.count});
    return;
  }
  for (int64_t i = 0; i < pair.queries.count; ++i) {
    const IndexRange& visible = pair.visible[i];
    if (visible.size() == 0) continue;
    const int64_t last = (visible.end - 1) / kMicroRows;
    for (int64_t group = visible.begin / kMicroRows; group <= last; ++group) {
      IndexRange& rows = pair.seeing[group];
      if (rows.size() == 0) rows.begin = i;
      rows.end = i + 1;
    }
  }
}

// weights = 2^(score - lse), d_scores = weights * (d_weights - delta); zero outside `visible`.
// On entry `weights` holds scores and `d_scores` d_weights, in columns [begin, end).
template <bool kMasked>
HWY_INLINE void DifferentiateRow(float* HWY_RESTRICT weights, float* HWY_RESTRICT d_scores,
                                 int64_t begin, int64_t end, IndexRange visible, float lse,
                                 float delta) {
  const FloatTag d;
  const FloatVec first = hn::Set(d, static_cast<float>(visible.begin));
  const FloatVec last = hn::Set(d, static_cast<float>(visible.end));
  const FloatVec shift = hn::Set(d, static_cast<float>(lse * kLog2E));
  const FloatVec row_delta = hn::Set(d, delta);
  for (int64_t j = begin; j < end; j += kLanes) {
    FloatVec weight = Exp2(d, hn::Sub(hn::Load(d, weights + j), shift));
    FloatVec d_score = hn::Mul(weight, hn::Sub(hn::Load(d, d_scores + j), row_delta));
    if constexpr (kMasked) {
      const FloatVec index = hn::Iota(d, static_cast<float>(j));
      const auto seen = hn::And(hn::Ge(index, first), hn::Lt(index, last));
      weight = hn::IfThenElseZero(seen, weight);
      d_score = hn::IfThenElseZero(seen, d_score);
    }
    hn::Store(weight, d, weights + j);
    hn::Store(d_score, d, d_scores + j);
  }
}

// Fills weights and d_scores for the kMicroRows rows from `first` on.
void DifferentiateGroup(const Pair& pair, int64_t first) {
  const GroupRange group = RangeOfGroup(pair.visible + first);
  const int64_t begin = PanelFloor(group.keys.begin);
  const int64_t end = PanelCeil(group.keys.end);
  float* weights = pair.scratch.weights + first * kKeyTile;
  float* d_scores = pair.scratch.d_scores + first * kKeyTile;
  StripTimesColumns(pair.queries.q_strips + first * pair.head_dim, pair.keys.k_columns,
                    pair.head_dim, begin, end, weights);
  StripTimesColumns(pair.queries.do_strips + first * pair.head_dim, pair.keys.v_columns,
                    pair.head_dim, begin, end, d_scores);
  for (int64_t m = 0; m < kMicroRows; ++m) {
    const int64_t i = first + m;
    float* w = weights + m * kKeyTile;
    float* ds = d_scores + m * kKeyTile;
    std::fill(w, w + begin, 0.0f);
    std::fill(w + end, w + pair.key_count, 0.0f);
    std::fill(ds, ds + begin, 0.0f);
    std::fill(ds + end, ds + pair.key_count, 0.0f);
    const bool real = i < pair.queries.count;
    const float lse = real ? pair.queries.lse.At(i) : 0.0f;
    const float delta = real ? pair.queries.delta.At(i) : 0.0f;
    if (group.masked) {
      DifferentiateRow<true>(w, ds, begin, end, pair.visible[i], lse, delta);
    } else {
      DifferentiateRow<false>(w, ds, begin, end, pair.visible[i], lse, delta);
    }
  }
}

// to[row] += factor * from[row] for every row; rows of `from` are padded.
void AddRows(const float* from, float factor, const HeadRows& to) {
  const int64_t stride = PaddedHeadDim(to.head_dim);
  for (int64_t i = 0; i < to.count; ++i) {
    float* row = to.FloatRow(i);
    for (int64_t c = 0; c < to.head_dim; ++c) row[c] += factor * from[i * stride + c];
  }
}

// dq += scale * d_scores . K
void AddQueryGradient(const Pair& pair, float softmax_scale) {
  const int64_t stride = PaddedHeadDim(pair.head_dim);
  for (int64_t first = 0; first < pair.row_count; first += kMicroRows) {
    const IndexRange keys = RangeOfGroup(pair.visible + first).keys;
    for (int64_t c = 0; c < pair.head_dim; c += kPanelWidth) {
      Accumulator<kMicroRows> acc;
      SetZero(acc);
      MultiplyAdd<kMicroRows, kKeyTile, 1>(
          pair.scratch.d_scores + first * kKeyTile + keys.begin,
          pair.keys.k_panels + c * kKeyTile + keys.begin * kPanelWidth, keys.size(), acc);
      StoreRows(acc, pair.scratch.accumulator + first * stride + c, stride);
    }
  }
  AddRows(pair.scratch.accumulator, softmax_scale, pair.queries.dq);
}

// to += factor * matrix^T . panels, `matrix` being weights or d_scores.
void AddKeyGradient(const Pair& pair, const float* matrix, const float* panels, float factor,
                    const HeadRows& to) {
  const int64_t stride = PaddedHeadDim(pair.head_dim);
  for (int64_t first = 0; first < pair.keys.count; first += kMicroRows) {
    const IndexRange rows = pair.seeing[first / kMicroRows];
    for (int64_t c = 0; c < pair.head_dim; c += kPanelWidth) {
      Accumulator<kMicroRows> acc;
      SetZero(acc);
      MultiplyAdd<kMicroRows, 1, kKeyTile>(matrix + rows.begin * kKeyTile + first,
                                           panels + c * kQueryBlock + rows.begin * kPanelWidth,
                                           rows.size(), acc);
      StoreRows(acc, pair.scratch.accumulator + first * stride + c, stride);
    }
  }
  AddRows(pair.scratch.accumulator, factor, to);
}

// The three products pair by pair over visible pairs only, for blocks where a NaN or an infinity
// must not meet the zero weight of a masked pair. Slow and rare.
void AddGradientsOfVisiblePairs(const Pair& pair, float softmax_scale) {
  for (int64_t i = 0; i < pair.queries.count; ++i) {
    float* dq = pair.queries.dq.FloatRow(i);
    for (int64_t j = pair.visible[i].begin; j < pair.visible[i].end; ++j) {
      const float weight = pair.scratch.weights[i * kKeyTile + j];
      const float d_score = pair.scratch.d_scores[i * kKeyTile + j];
      float* dk = pair.keys.dk.FloatRow(j);
      float* dv = pair.keys.dv.FloatRow(j);
      for (int64_t c = 0; c < pair.head_dim; ++c) {
        const int64_t panel = c / kPanelWidth * kPanelWidth;
        const int64_t column = c % kPanelWidth;
        const int64_t at_key = panel * kKeyTile + j * kPanelWidth + column;
        const int64_t at_row = panel * kQueryBlock + i * kPanelWidth + column;
        dq[c] += softmax_scale * d_score * pair.keys.k_panels[at_key];
        dk[c] += kLn2 * d_score * pair.queries.q_panels[at_row];
        dv[c] += weight * pair.queries.do_panels[at_row];
      }
    }
  }
}

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

void AttendBackwardPairImpl(const BackwardQueries& queries, const BackwardKeys& keys,
                            const annulusMask& mask, float softmax_scale,
                            const BackwardScratch& scratch) {
  Pair pair = {queries,
               keys,
               scratch,
               queries.dq.head_dim,
               RoundUp(queries.count, kMicroRows),
               RoundUp(RoundUp(keys.count, kPanelWidth), kMicroRows)};
  if (!FindVisible(mask, pair)) return;
  FindSeeing(pair);
  for (int64_t first = 0; first < pair.row_count; first += kMicroRows) {
    DifferentiateGroup(pair, first);
  }
  if (pair.masked && !(queries.finite && keys.finite)) {
    AddGradientsOfVisiblePairs(pair, softmax_scale);
    return;
  }
  AddQueryGradient(pair, softmax_scale);
  // q carries scale * log2(e): ln 2 leaves the scale.
  AddKeyGradient(pair, scratch.d_scores, queries.q_panels, kLn2, keys.dk);
  AddKeyGradient(pair, scratch.weights, queries.do_panels, 1.0f, keys.dv);
}

void PackBackwardKeysImpl(const HeadRows& k, const HeadRows& v, float* staging,
                          BackwardKeys* keys) {
  const int64_t rows = PanelCeil(k.count);
  keys->finite = !LoadRows(k, 1.0f, rows, staging);
  TransposeGroups<kPanelWidth>(staging, rows, k.head_dim, keys->k_columns);
  CopyPanels(staging, rows, kKeyTile, k.head_dim, keys->k_panels);
  LoadRows(v, 1.0f, rows, staging);
  TransposeGroups<kPanelWidth>(staging, rows, v.head_dim, keys->v_columns);
}

void PackBackwardQueriesImpl(const HeadRows& q, const HeadRows& d_o, float softmax_scale,
                             float* staging, BackwardQueries* queries) {
  const int64_t rows = RoundUp(q.count, kMicroRows);
  const bool q_poisoned = LoadRows(q, static_cast<float>(softmax_scale * kLog2E), rows, staging);
  TransposeGroups<kMicroRows>(staging, rows, q.head_dim, queries->q_strips);
  CopyPanels(staging, rows, kQueryBlock, q.head_dim, queries->q_panels);
  const bool do_poisoned = LoadRows(d_o, 1.0f, rows, staging);
  TransposeGroups<kMicroRows>(staging, rows, q.head_dim, queries->do_strips);
  CopyPanels(staging, rows, kQueryBlock, q.head_dim, queries->do_panels);
  queries->finite = !q_poisoned && !do_poisoned;
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace annulus::kernels::cpu {

HWY_EXPORT(AttendBackwardPairImpl);
HWY_EXPORT(PackBackwardKeysImpl);
HWY_EXPORT(PackBackwardQueriesImpl);

void AttendBackwardPair(const BackwardQueries& queries, const BackwardKeys& keys,
                        const annulusMask& mask, float softmax_scale,
                        const BackwardScratch& scratch) {
  HWY_DYNAMIC_DISPATCH(AttendBackwardPairImpl)(queries, keys, mask, softmax_scale, scratch);
}

void PackBackwardKeys(const HeadRows& k, const HeadRows& v, float* staging, BackwardKeys* keys) {
  HWY_DYNAMIC_DISPATCH(PackBackwardKeysImpl)(k, v, staging, keys);
}

void PackBackwardQueries(const HeadRows& q, const HeadRows& d_o, float softmax_scale,
                         float* staging, BackwardQueries* queries) {
  HWY_DYNAMIC_DISPATCH(PackBackwardQueriesImpl)(q, d_o, softmax_scale, staging, queries);
}

}  // namespace annulus::kernels::cpu
#endif  // HWY_ONCE
