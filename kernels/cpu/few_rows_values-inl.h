// SPDX-License-Identifier: Apache-2.0

// output += weights . v of few query rows and the values of a tile as they lie in the tensor.
// Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_FEW_ROWS_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_FEW_ROWS_VALUES_INL_H_
#undef ANNULUS_KERNELS_CPU_FEW_ROWS_VALUES_INL_H_
#else
#define ANNULUS_KERNELS_CPU_FEW_ROWS_VALUES_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/few_rows_heads-inl.h"
#include "kernels/cpu/few_rows_scores-inl.h"
#include "kernels/cpu/few_rows_vectors-inl.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/tile.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// Keys whose values are added at once where there are several rows.
constexpr int kValuesTogether = 8;

// output[r] += weights[r * kKeyTile] * value for kRows rows.
template <typename Element, int kRows, bool kFetch>
HWY_INLINE void AddValue(const float* HWY_RESTRICT weights, const RowsInTurn<Element, 1>& value,
                         int64_t head_dim, float* HWY_RESTRICT output) {
  const FloatTag d;
  constexpr int kMost = kRows == 1 ? 4 : 1;
  const int64_t stride = PaddedHeadDim(head_dim);
  FloatVec weight[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) weight[r] = hn::Set(d, weights[r * kKeyTile]);
  ForColumns<kMost>(head_dim, [&]<int kVectors>(int64_t c) {
    if constexpr (kFetch) Fetch<kVectors>(value.ahead[0], c);
    FloatVec columns[kVectorsOf<kVectors>];
    LoadColumns<kVectors>(value.rows[0] + c, columns);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < kVectorsOf<kVectors>; ++i) {
        float* const at = output + r * stride + c + i * kLanes;
        hn::Store(hn::MulAdd(weight[r], columns[i], hn::Load(d, at)), d, at);
      }
    }
  });
}

// output[r] += weights[r * kKeyTile + j] * values[j] for kRows rows and kValuesTogether keys.
// Several vectors side by side: few rows alone would wait for their own sums, many load a weight
// for each product.
template <typename Element, int kRows>
HWY_INLINE void AddBlock(const float* HWY_RESTRICT weights,
                         const RowsInTurn<Element, kValuesTogether>& values, int64_t head_dim,
                         float* HWY_RESTRICT output) {
  const FloatTag d;
  constexpr int kMost = kRows <= 2 || HWY_TARGET == HWY_AVX3 ? 4 : 2;
  const int64_t stride = PaddedHeadDim(head_dim);
  ForColumns<kMost>(head_dim, [&]<int kVectors>(int64_t c) {
    constexpr int kCount = kVectorsOf<kVectors>;
    FloatVec sums[kRows][kCount];
    const auto at = [&](int r, int i) { return output + r * stride + c + i * kLanes; };
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) sums[r][i] = hn::Load(d, at(r, i));
    }
    for (int j = 0; j < kValuesTogether; ++j) {
      Fetch<kVectors>(values.ahead[j], c);
      FloatVec columns[kCount];
      LoadColumns<kVectors>(values.rows[j] + c, columns);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const FloatVec weight = hn::Set(d, weights[r * kKeyTile + j]);
#pragma GCC unroll 4
        for (int i = 0; i < kCount; ++i) sums[r][i] = hn::MulAdd(weight, columns[i], sums[r][i]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) hn::Store(sums[r][i], d, at(r, i));
    }
  });
}

// Adds the values of the keys of `range`, counted from `first_key`, where there is one row a head.
template <typename Element, bool kFetch>
HWY_INLINE void AddToOneRow(const HeadSet& set, int64_t first_key, IndexRange range) {
  const HeadsInTurn<Element> values(set, &FewRowsHead::v);
  const int64_t head_dim = set.heads[0].v.head_dim;
  const int64_t heads = set.count;
  float* outputs[kFewRowsHeads];
  for (int64_t h = 0; h < heads; ++h) outputs[h] = set.heads[h].partial.output;
  for (int64_t j = range.begin; j < range.end; ++j) {
    const RowOffsets<1> offsets = values.template Rows<1>(first_key + j);
    const float* weight = set.Scores(0, 0) + j;
    for (int64_t h = 0; h < heads; ++h, weight += kKeyTile) {
      AddValue<Element, 1, kFetch>(weight, values.Head(h, offsets), head_dim, outputs[h]);
    }
  }
}

// The same for several rows, all of which see all of the keys.
template <typename Element>
HWY_INLINE void AddToRows(const HeadSet& set, int64_t first_key, IndexRange range) {
  const HeadsInTurn<Element> values(set, &FewRowsHead::v);
  const int64_t head_dim = set.heads[0].v.head_dim;
  const int64_t stride = PaddedHeadDim(head_dim);
  int64_t j = range.begin;
  for (; j + kValuesTogether <= range.end; j += kValuesTogether) {
    const auto offsets = values.template Rows<kValuesTogether>(first_key + j);
    for (int64_t h = 0; h < set.count; ++h) {
      const auto turn = values.Head(h, offsets);
      ForRowGroups(set.row_count, [&]<int kRows>(int64_t r) {
        AddBlock<Element, kRows>(set.Scores(h, r) + j, turn, head_dim,
                                 set.heads[h].partial.output + r * stride);
      });
    }
  }
  for (; j < range.end; ++j) {
    const auto offsets = values.template Rows<1>(first_key + j);
    for (int64_t h = 0; h < set.count; ++h) {
      const auto turn = values.Head(h, offsets);
      ForRowGroups(set.row_count, [&]<int kRows>(int64_t r) {
        AddValue<Element, kRows, false>(set.Scores(h, r) + j, turn, head_dim,
                                        set.heads[h].partial.output + r * stride);
      });
    }
  }
}

// The same for rows that see some of the keys each: a masked key's value may be a NaN, and is not
// added even with a weight of zero.
template <typename Element>
HWY_INLINE void AddToMaskedRows(const HeadSet& set, int64_t first_key, IndexRange range,
                                const IndexRange* visible) {
  const HeadsInTurn<Element> values(set, &FewRowsHead::v);
  const int64_t head_dim = set.heads[0].v.head_dim;
  for (int64_t j = range.begin; j < range.end; ++j) {
    const auto offsets = values.template Rows<1>(first_key + j);
    for (int64_t h = 0; h < set.count; ++h) {
      const auto turn = values.Head(h, offsets);
      for (int64_t r = 0; r < set.row_count; ++r) {
        if (j < visible[r].begin || j >= visible[r].end) continue;
        AddValue<Element, 1, false>(set.Scores(h, r) + j, turn, head_dim,
                                    set.heads[h].partial.output + r * PaddedHeadDim(head_dim));
      }
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
