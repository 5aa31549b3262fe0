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

// scores[r][j] = q[r] . k[j] for kRows rows and the kKeys keys from `k` on.
template <typename Element, int kRows, int kKeys>
HWY_INLINE void Dots(const float* HWY_RESTRICT q, const HeadRows& k, int64_t key, float* scores) {
  const PackTag d;
  const int64_t q_stride = PaddedHeadDim(k.head_dim);
  const Element* rows[kKeys];
  for (int j = 0; j < kKeys; ++j) rows[j] = static_cast<const Element*>(k.Row(key + j));
  PackVec sums[kRows][kKeys];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j) sums[r][j] = hn::Zero(d);
  }
  for (int64_t c = 0; c < k.head_dim; c += kStep) {
    PackVec keys[kKeys];
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j) keys[j] = LoadFloats(rows[j], c);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const PackVec query = hn::Load(d, q + r * q_stride + c);
#pragma GCC unroll 4
      for (int j = 0; j < kKeys; ++j) sums[r][j] = hn::MulAdd(query, keys[j], sums[r][j]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kKeys; ++j) {
      scores[r * kKeyTile + j] = hn::GetLane(hn::SumOfLanes(d, sums[r][j]));
    }
  }
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

template <typename Element, int kKeys>
HWY_INLINE void ScoreKeys(const FewRowsQueries& queries, const HeadRows& k, int64_t key,
                          float* scores) {
  const int64_t stride = PaddedHeadDim(k.head_dim);
  for (int j = 0; j < kKeys; ++j) PrefetchRow(k, key + kRowsAhead + j);
  ForRowGroups(queries.row_count, [&]<int kRows>(int64_t r) {
    Dots<Element, kRows, kKeys>(queries.q + r * stride, k, key, scores + r * kKeyTile);
  });
}

// scores[r][j] of all rows for the keys of `range`, counted from `first_key`.
template <typename Element>
HWY_INLINE void ScoreTile(const FewRowsQueries& queries, const HeadRows& k, int64_t first_key,
                          IndexRange range, float* scores) {
  int64_t j = range.begin;
  for (; j + kKeysTogether <= range.end; j += kKeysTogether) {
    ScoreKeys<Element, kKeysTogether>(queries, k, first_key + j, scores + j);
  }
  for (; j < range.end; ++j) ScoreKeys<Element, 1>(queries, k, first_key + j, scores + j);
}

// output[r] += weights[r][j] * values[j] for kRows rows and `count` keys.
template <typename Element, int kRows>
HWY_INLINE void AddValues(const float* HWY_RESTRICT weights, const Element* const* values,
                          int64_t count, int64_t head_dim, float* HWY_RESTRICT output) {
  const PackTag d;
  const int64_t stride = PaddedHeadDim(head_dim);
  for (int64_t c = 0; c < head_dim; c += kStep) {
    PackVec sums[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r] = hn::Load(d, output + r * stride + c);
    for (int64_t j = 0; j < count; ++j) {
      const PackVec value = LoadFloats(values[j], c);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        sums[r] = hn::MulAdd(hn::Set(d, weights[r * kKeyTile + j]), value, sums[r]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) hn::Store(sums[r], d, output + r * stride + c);
  }
}

// The same for `row_count` rows and the keys of `range`, counted from `first_key`.
template <typename Element>
HWY_INLINE void AddValuesOfRange(const float* weights, int64_t row_count, const HeadRows& v,
                                 int64_t first_key, IndexRange range, float* output) {
  const int64_t stride = PaddedHeadDim(v.head_dim);
  for (int64_t begin = range.begin; begin < range.end; begin += kValuesTogether) {
    const int64_t count = std::min(kValuesTogether, range.end - begin);
    const Element* values[kValuesTogether];
    for (int64_t j = 0; j < count; ++j) {
      values[j] = static_cast<const Element*>(v.Row(first_key + begin + j));
      PrefetchRow(v, first_key + begin + j + kRowsAhead);
    }
    ForRowGroups(row_count, [&]<int kRows>(int64_t r) {
      AddValues<Element, kRows>(weights + r * kKeyTile + begin, values, count, v.head_dim,
                                output + r * stride);
    });
  }
}

template <typename Element>
void AttendTile(const FewRowsQueries& queries, const FewRowsKeys& keys, IndexRange tile,
                const annulusMask& mask, float* scores, const FewRowsPartial& partial) {
  const int64_t head_dim = keys.k.head_dim;
  const int64_t stride = PaddedHeadDim(head_dim);
  IndexRange visible[kFewRowsMax];
  IndexRange seen = {tile.size(), 0};
  bool masked = tile.size() % kPanelWidth != 0;
  for (int64_t r = 0; r < queries.row_count; ++r) {
    visible[r] = VisibleKeys(mask, queries.positions[r], keys.positions + tile.begin, tile.size());
    masked |= visible[r].size() != tile.size();
    if (visible[r].size() == 0) continue;
    seen = {std::min(seen.begin, visible[r].begin), std::max(seen.end, visible[r].end)};
  }
  if (seen.size() <= 0) return;
  ScoreTile<Element>(queries, keys.k, tile.begin, seen, scores);
  for (int64_t r = 0; r < queries.row_count; ++r) {
    float* row = scores + r * kKeyTile;
    const int64_t begin = PanelFloor(seen.begin);
    const int64_t end = PanelCeil(seen.end);
    SoftmaxState<float>& state = partial.softmax[r];
    const float rescale = masked ? SoftmaxRow<true>(row, begin, end, visible[r], 1.0f, state)
                                 : SoftmaxRow<false>(row, begin, end, visible[r], 1.0f, state);
    if (rescale == 1.0f) continue;
    for (int64_t c = 0; c < head_dim; ++c) partial.output[r * stride + c] *= rescale;
  }
  if (!masked) {
    AddValuesOfRange<Element>(scores, queries.row_count, keys.v, tile.begin, seen, partial.output);
    return;
  }
  // Row by row, so that no masked key's value is read: it may be a NaN.
  for (int64_t r = 0; r < queries.row_count; ++r) {
    AddValuesOfRange<Element>(scores + r * kKeyTile, 1, keys.v, tile.begin, visible[r],
                              partial.output + r * stride);
  }
}

void AttendFewRowsImpl(const FewRowsQueries& queries, const FewRowsKeys& keys,
                       const annulusMask& mask, float* scores, const FewRowsPartial& partial) {
  std::fill(partial.softmax, partial.softmax + queries.row_count, SoftmaxState<float>());
  std::fill(partial.output, partial.output + queries.row_count * PaddedHeadDim(keys.k.head_dim),
            0.0f);
  for (int64_t t = 0; t < keys.tile_count; ++t) {
    switch (keys.k.dtype) {
      case ANNULUS_F32:
        AttendTile<float>(queries, keys, keys.tiles[t], mask, scores, partial);
        break;
      case ANNULUS_BF16:
        AttendTile<hwy::bfloat16_t>(queries, keys, keys.tiles[t], mask, scores, partial);
        break;
      case ANNULUS_F16:
        AttendTile<hwy::float16_t>(queries, keys, keys.tiles[t], mask, scores, partial);
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

void AttendFewRows(const FewRowsQueries& queries, const FewRowsKeys& keys, const annulusMask& mask,
                   float* scores, const FewRowsPartial& partial) {
  HWY_DYNAMIC_DISPATCH(AttendFewRowsImpl)(queries, keys, mask, scores, partial);
}

void MergeFewRows(const FewRowsPartial* partials, int64_t count, int64_t row, int64_t head_dim,
                  float* o, float* lse) {
  HWY_DYNAMIC_DISPATCH(MergeFewRowsImpl)(partials, count, row, head_dim, o, lse);
}

}  // namespace annulus::kernels::cpu
#endif  // HWY_ONCE
