// SPDX-License-Identifier: Apache-2.0

// q . k of few query rows and the keys of a tile as they lie in the tensor. Included once per
// instruction set.

#if defined(ANNULUS_KERNELS_CPU_FEW_ROWS_SCORES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_FEW_ROWS_SCORES_INL_H_
#undef ANNULUS_KERNELS_CPU_FEW_ROWS_SCORES_INL_H_
#else
#define ANNULUS_KERNELS_CPU_FEW_ROWS_SCORES_INL_H_
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

// Keys whose products are taken together where there are several rows: as many as leave registers
// for the rows. More would be more rows read at once, which the processor foresees less well.
constexpr int kKeysTogether = HWY_TARGET == HWY_AVX3 ? 4 : 2;
// Keys whose lane sums are taken at once where there is one row.
constexpr int kSumsTogether = 4;

// What, added up over its lanes, is q . k.
template <typename Element, bool kFetch>
HWY_INLINE FloatVec Products(const float* HWY_RESTRICT q, const RowsInTurn<Element, 1>& k,
                             int64_t head_dim) {
  const FloatTag d;
  // Chains enough to hide the latency of a multiply-add.
  constexpr int kChains = 4;
  FloatVec sums[kChains];
#pragma GCC unroll 4
  for (int i = 0; i < kChains; ++i) sums[i] = hn::Zero(d);
  ForColumns<kChains>(head_dim, [&]<int kVectors>(int64_t c) {
    if constexpr (kFetch) Fetch<kVectors>(k.ahead[0], c);
    FloatVec keys[kVectorsOf<kVectors>];
    LoadColumns<kVectors>(k.rows[0] + c, keys);
#pragma GCC unroll 4
    for (int i = 0; i < kVectorsOf<kVectors>; ++i) {
      sums[i] = hn::MulAdd(hn::Load(d, q + c + i * kLanes), keys[i], sums[i]);
    }
  });
  return hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
}

// The scores of one row a head for the keys of `range`, counted from `first_key`: key by key, each
// key's heads in the order they lie in memory, as the processor foresees it best.
template <typename Element, bool kFetch>
HWY_INLINE void ScoreOneRow(const HeadSet& set, int64_t first_key, IndexRange range) {
  const int64_t head_dim = set.heads[0].k.head_dim;
  FloatVec sums[kFewRowsHeads][kSumsTogether];
  const HeadsInTurn<Element> keys(set, &FewRowsHead::k);
  const float* queries[kFewRowsHeads];
  const int64_t heads = set.count;
  for (int64_t h = 0; h < heads; ++h) queries[h] = set.heads[h].q;
  for (int64_t j = range.begin; j < range.end; j += kSumsTogether) {
    const int64_t count = std::min<int64_t>(kSumsTogether, range.end - j);
    for (int64_t i = 0; i < count; ++i) {
      const RowOffsets<1> offsets = keys.template Rows<1>(first_key + j + i);
      for (int64_t h = 0; h < heads; ++h) {
        sums[h][i] = Products<Element, kFetch>(queries[h], keys.Head(h, offsets), head_dim);
      }
    }
    for (int64_t h = 0; h < set.count; ++h) {
      for (int64_t i = count; i < kSumsTogether; ++i) sums[h][i] = hn::Zero(FloatTag());
      float four[kSumsTogether];
      StoreLaneSums(sums[h], four);
      std::copy(four, four + count, set.Scores(h, 0) + j);
    }
  }
}

// Stores sums[r * kKeys + j], added up over its lanes, as scores[r * kKeyTile + j].
template <int kRows, int kKeys>
HWY_INLINE void StoreScores(const FloatVec (&sums)[kRows * kKeys], float* HWY_RESTRICT scores) {
#pragma GCC unroll 4
  for (int first = 0; first < kRows * kKeys; first += 4) {
    FloatVec four[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      four[i] = first + i < kRows * kKeys ? sums[first + i] : hn::Zero(FloatTag());
    }
    if constexpr (kKeys == 4) {
      StoreLaneSums(four, scores + first / kKeys * kKeyTile);
      continue;
    }
    float stored[4];
    StoreLaneSums(four, stored);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int s = first + i;
      if (s < kRows * kKeys) scores[s / kKeys * kKeyTile + s % kKeys] = stored[i];
    }
  }
}

// scores[r * kKeyTile + j] = q[r] . k[j] for kRows rows and kKeys keys. Not inlined: among its
// callers' variables the sums do not all find a register.
template <typename Element, int kRows, int kKeys>
HWY_NOINLINE void Dots(const float* HWY_RESTRICT q, const RowsInTurn<Element, kKeys>& k,
                       int64_t head_dim, float* HWY_RESTRICT scores) {
  const FloatTag d;
  constexpr int kSums = kRows * kKeys;
  // Chains enough to hide the latency of a multiply-add.
  constexpr int kChains = kSums <= 2 ? 4 : kSums <= 4 ? 2 : 1;
  const int64_t q_stride = PaddedHeadDim(head_dim);
  FloatVec sums[kChains][kSums];
#pragma GCC unroll 4
  for (int i = 0; i < kChains; ++i) {
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) sums[i][s] = hn::Zero(d);
  }
  ForColumns<kChains>(head_dim, [&]<int kVectors>(int64_t c) {
    FloatVec keys[kKeys][kVectorsOf<kVectors>];
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j) {
      Fetch<kVectors>(k.ahead[j], c);
      LoadColumns<kVectors>(k.rows[j] + c, keys[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kVectorsOf<kVectors>; ++i) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const FloatVec query = hn::Load(d, q + r * q_stride + c + i * kLanes);
#pragma GCC unroll 4
        for (int j = 0; j < kKeys; ++j) {
          sums[i][r * kKeys + j] = hn::MulAdd(query, keys[j][i], sums[i][r * kKeys + j]);
        }
      }
    }
  });
#pragma GCC unroll 4
  for (int i = 1; i < kChains; ++i) {
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) sums[0][s] = hn::Add(sums[0][s], sums[i][s]);
  }
  StoreScores<kRows, kKeys>(sums[0], scores);
}

template <typename Element, int kKeys>
HWY_INLINE void ScoreKeys(const HeadSet& set, const HeadsInTurn<Element>& keys, int64_t key,
                          int64_t column) {
  const int64_t head_dim = set.heads[0].k.head_dim;
  const RowOffsets<kKeys> offsets = keys.template Rows<kKeys>(key);
  for (int64_t h = 0; h < set.count; ++h) {
    const RowsInTurn<Element, kKeys> turn = keys.Head(h, offsets);
    ForRowGroups(set.row_count, [&]<int kRows>(int64_t r) {
      Dots<Element, kRows, kKeys>(set.heads[h].q + r * PaddedHeadDim(head_dim), turn, head_dim,
                                  set.Scores(h, r) + column);
    });
  }
}

// The same for several rows a head.
template <typename Element>
HWY_INLINE void ScoreRows(const HeadSet& set, int64_t first_key, IndexRange range) {
  const HeadsInTurn<Element> keys(set, &FewRowsHead::k);
  int64_t j = range.begin;
  for (; j + kKeysTogether <= range.end; j += kKeysTogether) {
    ScoreKeys<Element, kKeysTogether>(set, keys, first_key + j, j);
  }
  for (; j < range.end; ++j) ScoreKeys<Element, 1>(set, keys, first_key + j, j);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
