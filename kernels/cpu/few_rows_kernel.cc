// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/few_rows_kernel.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/few_rows_kernel.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/group_range-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/softmax_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

// Query rows and keys whose products are summed side by side: 4 * 3 sums, 3 keys and a query fill
// 16 registers.
constexpr int kRowsTogether = 4;
constexpr int kKeysTogether = 3;
// Keys whose values are added to the outputs while they are in the first cache.
constexpr int64_t kValuesTogether = 16;

constexpr int64_t kStep = static_cast<int64_t>(hn::MaxLanes(PackTag()));

// out[i * stride] = the sum of the lanes of sums[i]. Four at once share what it takes to cross
// lanes.
template <int kCount>
HWY_INLINE void StoreLaneSums(const PackVec (&sums)[kCount], int64_t stride, float* out) {
  const PackTag d;
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  if constexpr (kCount == 4) {
    const auto interleave = [d](PackVec a, PackVec b) {
      return hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
    };
    const hn::RepartitionToWide<PackTag> pairs;
    const auto low = hn::BitCast(pairs, interleave(sums[0], sums[1]));
    const auto high = hn::BitCast(pairs, interleave(sums[2], sums[3]));
    PackVec four = hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, low, high)),
                           hn::BitCast(d, hn::InterleaveUpper(pairs, low, high)));
    if constexpr (hn::MaxLanes(PackTag()) == 8) {
      four = hn::Add(four, hn::ConcatUpperUpper(d, four, four));
    }
    alignas(32) float stored[hn::MaxLanes(PackTag())];
    hn::Store(four, d, stored);
    for (int i = 0; i < 4; ++i) out[i * stride] = stored[i];
    return;
  }
#endif
  for (int i = 0; i < kCount; ++i) out[i * stride] = hn::GetLane(hn::SumOfLanes(d, sums[i]));
}

// scores[r][j] = q[r] . k[j] for kRows rows and the kKeys keys from `k` on.
template <typename Element, int kRows, int kKeys>
HWY_INLINE void Dots(const float* HWY_RESTRICT q, const HeadRows& k, int64_t key, float* scores) {
  const PackTag d;
  const int64_t q_stride = PaddedHeadDim(k.head_dim);
  const Element* rows[kKeys];
  for (int j = 0; j < kKeys; ++j) rows[j] = static_cast<const Element*>(k.Row(key + j));
  PackVec sums[kKeys][kRows];
#pragma GCC unroll 4
  for (int j = 0; j < kKeys; ++j) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[j][r] = hn::Zero(d);
  }
  for (int64_t c = 0; c < k.head_dim; c += kStep) {
    PackVec keys[kKeys];
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j) keys[j] = LoadFloats(rows[j], c);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const PackVec query = hn::Load(d, q + r * q_stride + c);
#pragma GCC unroll 4
      for (int j = 0; j < kKeys; ++j) sums[j][r] = hn::MulAdd(query, keys[j], sums[j][r]);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kKeys; ++j) StoreLaneSums(sums[j], kKeyTile, scores + j);
}

// Calls body.operator()<n>(first) for groups of n <= kRowsTogether rows.
template <typename Body>
HWY_INLINE void ForRowGroups(int64_t row_count, const Body& body) {
  int64_t r = 0;
  for (; r + kRowsTogether <= row_count; r += kRowsTogether) {
    body.template operator()<kRowsTogether>(r);
  }
  switch (row_count - r) {
    case 3:
      return body.template operator()<3>(r);
    case 2:
      return body.template operator()<2>(r);
    case 1:
      return body.template operator()<1>(r);
    default:
      return;
  }
}

// The heads that are read side by side, and their scores, [head][row][kKeyTile].
struct HeadSet {
  const FewRowsHead* heads;
  int64_t count;
  int64_t row_count;
  float* scores;

  float* Scores(int64_t head, int64_t row) const {
    return scores + (head * row_count + row) * kKeyTile;
  }
};

template <typename Element, int kKeys>
HWY_INLINE void ScoreKeys(const HeadSet& set, int64_t key, int64_t column) {
  for (int64_t h = 0; h < set.count; ++h) {
    const FewRowsHead& head = set.heads[h];
    const int64_t stride = PaddedHeadDim(head.k.head_dim);
    for (int j = 0; j < kKeys; ++j) PrefetchRow(head.k, key + kRowsAhead + j);
    ForRowGroups(set.row_count, [&]<int kRows>(int64_t r) {
      Dots<Element, kRows, kKeys>(head.q + r * stride, head.k, key, set.Scores(h, r) + column);
    });
  }
}

// The scores of all rows for the keys of `range`, counted from `first_key`.
template <typename Element>
HWY_INLINE void ScoreTile(const HeadSet& set, int64_t first_key, IndexRange range) {
  int64_t j = range.begin;
  for (; j + kKeysTogether <= range.end; j += kKeysTogether) {
    ScoreKeys<Element, kKeysTogether>(set, first_key + j, j);
  }
  for (; j < range.end; ++j) ScoreKeys<Element, 1>(set, first_key + j, j);
}

// output[r] += weights[r][j] * values[j] for kRows rows, `count` keys and kVectors vectors from
// column c on.
template <typename Element, int kRows, int kVectors>
HWY_INLINE void AddValuesOfColumns(const float* HWY_RESTRICT weights, const Element* const* values,
                                   int64_t count, int64_t stride, int64_t c,
                                   float* HWY_RESTRICT output) {
  const PackTag d;
  PackVec sums[kRows][kVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i)
      sums[r][i] = hn::Load(d, output + r * stride + c + i * kStep);
  }
  for (int64_t j = 0; j < count; ++j) {
    PackVec value[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) value[i] = LoadFloats(values[j], c + i * kStep);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const PackVec weight = hn::Set(d, weights[r * kKeyTile + j]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) sums[r][i] = hn::MulAdd(weight, value[i], sums[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i)
      hn::Store(sums[r][i], d, output + r * stride + c + i * kStep);
  }
}

// The same for all columns. Several vectors side by side: few rows alone would wait for their own
// sums, many load a weight for each product.
template <typename Element, int kRows>
HWY_INLINE void AddValues(const float* HWY_RESTRICT weights, const Element* const* values,
                          int64_t count, int64_t head_dim, float* HWY_RESTRICT output) {
  constexpr int kVectors = kRows <= 2 ? 4 : 2;
  const int64_t stride = PaddedHeadDim(head_dim);
  int64_t c = 0;
  for (; c + kVectors * kStep <= head_dim; c += kVectors * kStep) {
    AddValuesOfColumns<Element, kRows, kVectors>(weights, values, count, stride, c, output);
  }
  for (; c < head_dim; c += kStep) {
    AddValuesOfColumns<Element, kRows, 1>(weights, values, count, stride, c, output);
  }
}

// The same for rows [row, row + row_count) and keys [begin, begin + count), counted from
// `first_key`.
template <typename Element>
HWY_INLINE void AddValuesOfKeys(const HeadSet& set, int64_t h, int64_t row, int64_t row_count,
                                int64_t first_key, int64_t begin, int64_t count) {
  const FewRowsHead& head = set.heads[h];
  const int64_t stride = PaddedHeadDim(head.v.head_dim);
  const Element* values[kValuesTogether];
  for (int64_t j = 0; j < count; ++j) {
    values[j] = static_cast<const Element*>(head.v.Row(first_key + begin + j));
    PrefetchRow(head.v, first_key + begin + j + kRowsAhead);
  }
  ForRowGroups(row_count, [&]<int kRows>(int64_t r) {
    AddValues<Element, kRows>(set.Scores(h, row + r) + begin, values, count, head.v.head_dim,
                              head.partial.output + (row + r) * stride);
  });
}

// Adds the values of the tile to the outputs. Masked rows one by one, so that no masked key's value
// is read: it may be a NaN.
template <typename Element>
HWY_INLINE void AddValuesOfTile(const HeadSet& set, int64_t first_key, IndexRange seen,
                                const IndexRange* visible, bool masked) {
  for (int64_t begin = seen.begin; begin < seen.end; begin += kValuesTogether) {
    const int64_t end = std::min(begin + kValuesTogether, seen.end);
    for (int64_t h = 0; h < set.count; ++h) {
      if (!masked) {
        AddValuesOfKeys<Element>(set, h, 0, set.row_count, first_key, begin, end - begin);
        continue;
      }
      for (int64_t r = 0; r < set.row_count; ++r) {
        const int64_t from = std::max(begin, visible[r].begin);
        const int64_t to = std::min(end, visible[r].end);
        if (from < to) AddValuesOfKeys<Element>(set, h, r, 1, first_key, from, to - from);
      }
    }
  }
}

// Turns the scores of a tile into weights and rescales the outputs.
HWY_INLINE void SoftmaxTile(const HeadSet& set, IndexRange seen, const IndexRange* visible) {
  const int64_t begin = PanelFloor(seen.begin);
  const int64_t end = PanelCeil(seen.end);
  for (int64_t h = 0; h < set.count; ++h) {
    const FewRowsHead& head = set.heads[h];
    for (int64_t r = 0; r < set.row_count; ++r) {
      float* row = set.Scores(h, r);
      SoftmaxState<float>& state = head.partial.softmax[r];
      float rescale = 1.0f;
      SoftmaxRows<1>(row, begin, end, visible + r, 1.0f, &state, &rescale);
      if (rescale == 1.0f) continue;
      float* output = head.partial.output + r * PaddedHeadDim(head.k.head_dim);
      for (int64_t c = 0; c < head.k.head_dim; ++c) output[c] *= rescale;
    }
  }
}

template <typename Element>
void AttendTile(const HeadSet& set, const FewRowsBlock& block, IndexRange tile) {
  IndexRange visible[kFewRowsMax];
  IndexRange seen = {tile.size(), 0};
  bool masked = tile.size() % kPanelWidth != 0;
  for (int64_t r = 0; r < block.row_count; ++r) {
    visible[r] = VisibleKeys(block.mask, block.row_positions[r], block.key_positions + tile.begin,
                             tile.size());
    masked |= visible[r].size() != tile.size();
    if (visible[r].size() == 0) continue;
    seen = {std::min(seen.begin, visible[r].begin), std::max(seen.end, visible[r].end)};
  }
  if (seen.size() <= 0) return;
  ScoreTile<Element>(set, tile.begin, seen);
  SoftmaxTile(set, seen, visible);
  AddValuesOfTile<Element>(set, tile.begin, seen, visible, masked);
}

void AttendFewRowsImpl(const FewRowsHead* heads, int64_t head_count, const FewRowsBlock& block,
                       float* scratch) {
  const HeadSet set = {heads, head_count, block.row_count, scratch};
  const int64_t stride = PaddedHeadDim(heads[0].k.head_dim);
  for (int64_t h = 0; h < head_count; ++h) {
    const FewRowsPartial& partial = heads[h].partial;
    std::fill(partial.softmax, partial.softmax + block.row_count, SoftmaxState<float>());
    std::fill(partial.output, partial.output + block.row_count * stride, 0.0f);
  }
  for (int64_t t = 0; t < block.tile_count; ++t) {
    switch (heads[0].k.dtype) {
      case ANNULUS_F32:
        AttendTile<float>(set, block, block.tiles[t]);
        break;
      case ANNULUS_BF16:
        AttendTile<hwy::bfloat16_t>(set, block, block.tiles[t]);
        break;
      case ANNULUS_F16:
        AttendTile<hwy::float16_t>(set, block, block.tiles[t]);
        break;
    }
  }
}

void PackFewRowsImpl(const HeadRows& rows, float softmax_scale, float* q) {
  const int64_t stride = PaddedHeadDim(rows.head_dim);
  HeadRows row = rows;
  row.count = 1;
  for (int64_t i = 0; i < rows.count; ++i, ++row.rows) {
    LoadRows(row, static_cast<float>(softmax_scale * kLog2E), 1, q + i * stride);
    std::fill(q + i * stride + rows.head_dim, q + (i + 1) * stride, 0.0f);
  }
}

void MergeFewRowsImpl(const FewRowsPartial* partials, int64_t count, int64_t row, int64_t head_dim,
                      float* o, float* lse) {
  SoftmaxState<float> total;
  const bool begun = *lse != -std::numeric_limits<float>::infinity();
  if (begun) total = StateOfLse(*lse);
  const float own = total.sum;
  float max = total.max;
  bool touched = false;
  for (int64_t p = 0; p < count; ++p) {
    const SoftmaxState<float>& state = partials[p].softmax[row];
    if (state.sum == 0.0f) continue;  // false for a NaN, which must stay
    touched = true;
    max = max < state.max ? state.max : max;
  }
  if (!touched) return;
  const float safe = SafeMax(max);
  const float own_weight = begun ? own * std::exp2(total.max - safe) : 0.0f;
  for (int64_t c = 0; c < head_dim; ++c) o[c] = begun ? o[c] * own_weight : 0.0f;
  total = {max, own_weight};
  const int64_t stride = PaddedHeadDim(head_dim);
  for (int64_t p = 0; p < count; ++p) {
    const SoftmaxState<float>& state = partials[p].softmax[row];
    if (state.sum == 0.0f) continue;
    const float weight = std::exp2(state.max - safe);
    total.sum += weight * state.sum;
    const float* from = partials[p].output + row * stride;
    for (int64_t c = 0; c < head_dim; ++c) o[c] += weight * from[c];
  }
  const float inverse = 1.0f / total.sum;
  for (int64_t c = 0; c < head_dim; ++c) o[c] *= inverse;
  *lse = LseOfState(total);
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace annulus::kernels::cpu {

HWY_EXPORT(AttendFewRowsImpl);
HWY_EXPORT(PackFewRowsImpl);
HWY_EXPORT(MergeFewRowsImpl);

void PackFewRows(const HeadRows& rows, float softmax_scale, float* q) {
  HWY_DYNAMIC_DISPATCH(PackFewRowsImpl)(rows, softmax_scale, q);
}

void AttendFewRows(const FewRowsHead* heads, int64_t head_count, const FewRowsBlock& block,
                   float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendFewRowsImpl)(heads, head_count, block, scratch);
}

void MergeFewRows(const FewRowsPartial* partials, int64_t count, int64_t row, int64_t head_dim,
                  float* o, float* lse) {
  HWY_DYNAMIC_DISPATCH(MergeFewRowsImpl)(partials, count, row, head_dim, o, lse);
}

}  // namespace annulus::kernels::cpu
#endif  // HWY_ONCE
