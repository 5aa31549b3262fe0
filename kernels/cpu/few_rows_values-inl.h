// SPDX-License-Identifier: Apache-2.0

// output += weights . v of few query rows and the values of a tile as they lie in the tensor.
// Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_FEW_ROWS_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_FEW_ROWS_VALUES_INL_H_
#undef ANNULUS_KERNELS_CPU_FEW_ROWS_VALUES_INL_H_
#else
#define ANNULUS_KERNELS_CPU_FEW_ROWS_VALUES_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/few_rows_heads-inl.h"
#include "kernels/cpu/few_rows_vectors-inl.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/tile.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// Keys whose values are added at once.
constexpr int kValuesTogether = 8;

// output[r] += weights[r * kKeyTile + j] * values[j] for kRows rows and kKeys keys, of kVectors
// vectors (0: a tail) of a row from column c on. Fetches what kFetchBytes of the rows take.
template <int kRows, int kVectors, int kFetchBytes, typename Element, int kKeys>
HWY_INLINE void AddColumns(const float* HWY_RESTRICT weights,
                           const RowBlock<Element, kKeys>& values, int64_t c, int64_t stride,
                           float* HWY_RESTRICT output) {
  const FloatTag d;
  constexpr int kCount = kVectorsOf<kVectors>;
  const LinesAhead ahead = values.ahead;
  FloatVec sums[kRows][kCount];
  const auto at = [&](int r, int i) { return output + r * stride + c + i * kLanes; };
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) sums[r][i] = hn::Load(d, at(r, i));
  }
#pragma GCC unroll 8
  for (int j = 0; j < kKeys; ++j) {
    if constexpr (kFetchBytes > 0) {
      ahead.Fetch<0, kKeys, kFetchBytes>(c * sizeof(Element), j);
    }
    FloatVec columns[kCount];
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) columns[i] = LoadColumns<kVectors>(values.rows[j] + c, i);
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
}

// The same of whole rows. Several vectors side by side: few rows alone would wait for their own
// sums, many load a weight for each product.
template <int kRows, typename Element, int kKeys>
HWY_NOINLINE void AddBlock(const float* HWY_RESTRICT weights,
                           const RowBlock<Element, kKeys>& values, int64_t head_dim,
                           float* HWY_RESTRICT output) {
  constexpr int kMost = kRows <= 2 || HWY_TARGET == HWY_AVX3 ? 4 : 2;
  constexpr int kStep = std::max(kMost, kLineVectors<Element>);
  const int64_t stride = PaddedHeadDim(head_dim);
  ForColumns<kStep>(head_dim, [&]<int kVectors>(int64_t c) HWY_ATTR {
    constexpr int kFirst = std::min(kVectors, kMost);
    AddColumns<kRows, kFirst, kBytesOf<kVectors, Element>>(weights, values, c, stride, output);
    if constexpr (kVectors > kFirst) {
      AddColumns<kRows, kVectors - kFirst, 0>(weights, values, c + kFirst * kLanes, stride, output);
    }
  });
}

// Adds the values of the keys of `range` of the tile, all of which all rows see, but for the last
// few. Returns the first of these.
template <typename Element>
HWY_INLINE int64_t AddBlocks(const HeadSet& set, const annulusSpan& tile, IndexRange range) {
  const RowsOfHeads<Element, kValuesTogether> values(set, &FewRowsHead::v, set.block.v_row_stride,
                                                     tile);
  int64_t j = range.begin;
  for (; j + kValuesTogether <= range.end; j += kValuesTogether) {
    for (int64_t h = 0; h < set.count; ++h) {
      const auto block = values.Block(h, j);
      ForRowGroups(set.block.row_count, [&]<int kRows>(int64_t r) {
        AddBlock<kRows>(set.Scores(h, r) + j, block, set.block.head_dim, set.Output(h, r));
      });
    }
  }
  return j;
}

// Adds the values of the keys of `range` key by key, to the rows that see them: a masked key's
// value may be a NaN, and is not added even with a weight of zero.
template <typename Element>
HWY_INLINE void AddKeyByKey(const HeadSet& set, const annulusSpan& tile, IndexRange range,
                            const IndexRange* visible) {
  if (range.size() == 0) return;
  const RowsOfHeads<Element, 1> values(set, &FewRowsHead::v, set.block.v_row_stride, tile);
  for (int64_t j = range.begin; j < range.end; ++j) {
    for (int64_t h = 0; h < set.count; ++h) {
      const auto block = values.Block(h, j);
      for (int64_t r = 0; r < set.block.row_count; ++r) {
        if (j < visible[r].begin || j >= visible[r].end) continue;
        AddBlock<1>(set.Scores(h, r) + j, block, set.block.head_dim, set.Output(h, r));
      }
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
