// SPDX-License-Identifier: Apache-2.0

// The heads that few query rows are held against side by side, and their keys or values in the
// order they lie in memory. Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_FEW_ROWS_HEADS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_FEW_ROWS_HEADS_INL_H_
#undef ANNULUS_KERNELS_CPU_FEW_ROWS_HEADS_INL_H_
#else
#define ANNULUS_KERNELS_CPU_FEW_ROWS_HEADS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/few_rows_kernel.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/tile.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// The heads that are read side by side, and their scores, [head][row][kKeyTile].
struct HeadSet {
  const FewRowsHead* heads;
  int64_t count;
  const FewRowsBlock& block;
  float* scores;

  float* Scores(int64_t head, int64_t row) const {
    return scores + (head * block.row_count + row) * kKeyTile;
  }
  const float* Query(int64_t head, int64_t row) const {
    return heads[head].q + row * PaddedHeadDim(block.head_dim);
  }
  float* Output(int64_t head, int64_t row) const {
    return heads[head].partial.output + row * PaddedHeadDim(block.head_dim);
  }
};

// Query rows that are worked on together: 4 rows' sums fit the registers beside what they read.
constexpr int kRowsTogether = 4;

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

// How far in front of the reading rows are fetched, and into which cache: the second where vectors
// are wide (Emerald Rapids reads memory 1.1 times as fast then), else the first.
constexpr int64_t kAheadBytes = 4096;
constexpr int kFetchLocality = HWY_TARGET == HWY_AVX3 ? 2 : 3;
constexpr int64_t kLineBytes = 64;

// Rows of one head that are read together, and what to fetch meanwhile.
template <typename Element, int kCount>
struct RowBlock {
  const Element* rows[kCount];
  const Element* ahead;
};

// The keys or the values of a tile, of a set of heads, kCount rows at a time. A row's heads are
// neighbours in memory. What is read later is fetched in the order it lies in, which is what memory
// is fastest at: each head of a block of rows fetches its share of a later block, whichever heads'
// that is.
template <typename Element, int kCount>
class RowsOfHeads {
 public:
  RowsOfHeads(const HeadSet& set, const void* FewRowsHead::*side, int64_t row_stride,
              const annulusSpan& tile)
      : row_stride_(row_stride), last_(tile.count - 1) {
    for (int64_t h = 0; h < set.count; ++h) {
      begin_[h] = static_cast<const Element*>(set.heads[h].*side) + tile.row * row_stride;
    }
    const int64_t head_dim = set.block.head_dim;
    const int64_t row_bytes = set.count * head_dim * static_cast<int64_t>(sizeof(Element));
    // Rows that are read together are on their way already.
    const int64_t rows_ahead = std::max<int64_t>(CeilDiv(kAheadBytes, row_bytes), kCount);
    for (int64_t h = 0; h < set.count; ++h) {
      const int64_t row = rows_ahead + h * kCount / set.count;
      ahead_[h] = begin_[0] + row * row_stride + h * kCount % set.count * head_dim;
    }
  }

  // From row `first` of the tile on; past its last row, that one again.
  HWY_INLINE RowBlock<Element, kCount> Block(int64_t head, int64_t first) const {
    const Element* const begin = begin_[head];
    RowBlock<Element, kCount> block;
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      block.rows[i] = begin + std::min(first + i, last_) * row_stride_;
    }
    // It may lie past the tensor's end.
    block.ahead = ahead_[head] + first * row_stride_;
    return block;
  }

 private:
  int64_t row_stride_;
  int64_t last_;
  const Element* begin_[kFewRowsHeads];
  const Element* ahead_[kFewRowsHeads];
};

// Fetches as many lines from `ahead` on as kVectors vectors (0: a tail) from column c of the j-th
// of kKeys rows on. A line at a time: a burst holds up the reading where few may be on their way.
template <int kKeys, int kVectors, typename Element>
HWY_INLINE void Fetch(const Element* ahead, int64_t c, int j) {
  constexpr int kLine = kLineBytes / sizeof(Element);
  constexpr int kColumns = kVectors == 0 ? 8 : kVectors * kLanes;
  const Element* const from = ahead + c * kKeys + j * kColumns;
  if (j * kColumns % kLine != 0) return;
#pragma GCC unroll 4
  for (int i = 0; i < kColumns; i += kLine) __builtin_prefetch(from + i, 0, kFetchLocality);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
