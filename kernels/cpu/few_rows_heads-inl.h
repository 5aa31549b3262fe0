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
  int64_t row_count;
  float* scores;

  float* Scores(int64_t head, int64_t row) const {
    return scores + (head * row_count + row) * kKeyTile;
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

// Where kCount rows begin, in elements from row 0, and those to be fetched when they are read.
template <int kCount>
struct RowOffsets {
  int64_t rows[kCount];
  int64_t ahead[kCount];
};

// The same of one head, in memory.
template <typename Element, int kCount>
struct RowsInTurn {
  const Element* rows[kCount];
  const Element* ahead[kCount];
};

// The keys or the values of a set of heads. A row's heads are neighbours in memory: whoever goes
// over the rows in order, and over the heads of each, reads memory from end to end.
template <typename Element>
class HeadsInTurn {
 public:
  HeadsInTurn(const HeadSet& set, HeadRows FewRowsHead::*side) : side_(set.heads[0].*side) {
    for (int64_t h = 0; h < set.count; ++h) {
      bases_[h] = reinterpret_cast<const Element*>((set.heads[h].*side).base);
    }
    const auto row_bytes = set.count * side_.head_dim * static_cast<int64_t>(sizeof(Element));
    rows_ahead_ = CeilDiv(kAheadBytes, row_bytes);
  }

  template <int kCount>
  HWY_INLINE RowOffsets<kCount> Rows(int64_t first) const {
    // Rows that are read together are on their way already.
    const int64_t ahead = std::max<int64_t>(rows_ahead_, kCount);
    RowOffsets<kCount> offsets;
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      offsets.rows[i] = Offset(first + i);
      offsets.ahead[i] = Offset(std::min(first + i + ahead, side_.count - 1));
    }
    return offsets;
  }

  template <int kCount>
  HWY_INLINE RowsInTurn<Element, kCount> Head(int64_t h, const RowOffsets<kCount>& offsets) const {
    RowsInTurn<Element, kCount> turn;
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      turn.rows[i] = bases_[h] + offsets.rows[i];
      turn.ahead[i] = bases_[h] + offsets.ahead[i];
    }
    return turn;
  }

 private:
  HWY_INLINE int64_t Offset(int64_t row) const {
    return (side_.rows[row] + side_.row_offset) * side_.row_stride;
  }

  const HeadRows& side_;
  const Element* bases_[kFewRowsHeads];
  int64_t rows_ahead_;
};

// Fetches what kVectors vectors take (0: a tail) that are read from column c of a row on. A line at
// a time: a burst would hold up the reading.
template <int kVectors, typename Element>
HWY_INLINE void Fetch(const Element* row, int64_t c) {
  constexpr int64_t kLine = 64 / sizeof(Element);
  constexpr int64_t kColumns = kVectors * kLanes;
  if (kColumns % kLine != 0 && c % kLine != 0) return;
  constexpr int64_t kLines = kColumns > kLine ? kColumns / kLine : 1;
#pragma GCC unroll 4
  for (int64_t i = 0; i < kLines; ++i) {
    __builtin_prefetch(row + c + i * kLine, 0, kFetchLocality);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
