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

// Keys that are read together: their lane sums share what it takes to cross lanes.
constexpr int kKeysTogether = 4;
// Sums that find a register beside their operands.
constexpr int kSumsMost = HWY_TARGET == HWY_AVX3 ? 16 : 12;

// Keeps a vector that is multiplied several times from being read again for each product.
HWY_INLINE FloatVec InRegister(FloatVec v) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  auto raw = v.raw;
  asm("" : "+x"(raw));
  v.raw = raw;
#endif
  return v;
}

// sums[r][j], added up over its lanes, is q[r] . k[j] for kRows rows, PaddedHeadDim(head_dim)
// apart, and keys [kFirst, kFirst + kKeys).
template <int kFirst, int kKeys, typename Element, int kRows>
HWY_INLINE void Dots(const float* HWY_RESTRICT q, const RowBlock<Element, kKeysTogether>& k,
                     int64_t head_dim, FloatVec (&sums)[kRows][kKeysTogether]) {
  const FloatTag d;
  const int64_t q_stride = PaddedHeadDim(head_dim);
  // Chains enough to hide the latency of a multiply-add.
  constexpr int kChains = kRows * kKeys <= 4 ? 2 : 1;
  constexpr int kMost = std::max(kLineVectors<Element>, kChains);
  const LinesAhead ahead = k.ahead;
  FloatVec chains[kChains][kRows][kKeys];
  for (auto& chain : chains) {
    for (auto& row : chain) {
      for (FloatVec& sum : row) sum = hn::Zero(d);
    }
  }
  ForColumns<kMost>(head_dim, [&]<int kVectors>(int64_t c) HWY_ATTR {
#pragma GCC unroll 4
    for (int i = 0; i < kVectorsOf<kVectors>; ++i) {
      FloatVec queries[kRows];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        queries[r] = InRegister(hn::Load(d, q + r * q_stride + c + i * kLanes));
      }
#pragma GCC unroll 4
      for (int j = 0; j < kKeys; ++j) {
        if (i == 0) {
          ahead.Fetch<kFirst, kKeys, kBytesOf<kVectors, Element>>(c * sizeof(Element), j);
        }
        const FloatVec key = LoadColumns<kVectors>(k.rows[kFirst + j] + c, i);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          FloatVec& sum = chains[i % kChains][r][j];
          sum = hn::MulAdd(queries[r], key, sum);
        }
      }
    }
  });
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j) {
      FloatVec& sum = sums[r][kFirst + j];
      sum = chains[0][r][j];
      if constexpr (kChains == 2) sum = hn::Add(sum, chains[1][r][j]);
    }
  }
}

// scores[r * kKeyTile + j] = q[r] . k[j] for kRows rows and kKeysTogether keys. Not inlined: among
// its callers' variables the sums do not all find a register.
template <int kRows, typename Element>
HWY_NOINLINE void ScoreBlock(const float* HWY_RESTRICT q, const RowBlock<Element, kKeysTogether>& k,
                             int64_t head_dim, float* HWY_RESTRICT scores) {
  constexpr int kKeys = kRows * kKeysTogether <= kSumsMost ? kKeysTogether : 2;
  FloatVec sums[kRows][kKeysTogether];
  Dots<0, kKeys>(q, k, head_dim, sums);
  if constexpr (kKeys < kKeysTogether) Dots<kKeys, kKeys>(q, k, head_dim, sums);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) StoreLaneSums(sums[r], scores + r * kKeyTile);
}

// The heads' scores for the keys of `range` of the tile, and for some beside them.
template <typename Element>
HWY_INLINE void ScoreRows(const HeadSet& set, const annulusSpan& tile, IndexRange range) {
  const RowsOfHeads<Element, kKeysTogether> keys(set, &FewRowsHead::k, set.block.k_row_stride,
                                                 tile);
  for (int64_t j = range.begin / kKeysTogether * kKeysTogether; j < range.end; j += kKeysTogether) {
    for (int64_t h = 0; h < set.count; ++h) {
      const auto block = keys.Block(h, j);
      ForRowGroups(set.block.row_count, [&]<int kRows>(int64_t r) {
        ScoreBlock<kRows>(set.Query(h, r), block, set.block.head_dim, set.Scores(h, r) + j);
      });
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
