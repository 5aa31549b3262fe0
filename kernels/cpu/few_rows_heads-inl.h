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
#include "kernels/cpu/few_rows_vectors-inl.h"
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

// Lines of memory that are read later than a block of rows, as many as it takes. A number, because
// it may lie past the tensor's end: it is never read through.
struct LinesAhead {
  uintptr_t begin;
  uintptr_t row_bytes;  // from what is fetched during a row to what is during the next
  bool in_order;        // one line after the other, else row by row

  // Fetches what kBytes of the j-th of kRows rows, from kFirst on, and `column_bytes` on, take. A
  // line at a time: a burst holds up the reading where few may be on their way.
  template <int kFirst, int kRows, int kBytes>
  HWY_INLINE void Fetch(uintptr_t column_bytes, int j) const {
    const uintptr_t from = begin + kFirst * row_bytes;
    const uintptr_t at =
        in_order ? from + column_bytes * kRows + j * kBytes : from + column_bytes + j * row_bytes;
#pragma GCC unroll 4
    for (int i = 0; i < kBytes; i += kLineBytes) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr)
      __builtin_prefetch(reinterpret_cast<const void*>(at + i), 0, kFetchLocality);
    }
  }
};

// Rows of one head that are read together, and what to fetch meanwhile.
template <typename Element, int kCount>
struct RowBlock {
  const Element* rows[kCount];
  LinesAhead ahead;
};

// The keys or the values of a tile, of a set of heads, kCount rows at a time. Memory is fastest
// when it is read in order: where a row's heads are neighbours, each head of a block of rows
// fetches its share of a later block, whichever heads' that is. Else each fetches its own rows.
template <typename Element, int kCount>
class RowsOfHeads {
 public:
  RowsOfHeads(const HeadSet& set, const void* FewRowsHead::*side, int64_t row_stride,
              const annulusSpan& tile)
      : row_stride_(row_stride),
        last_(tile.count - 1),
        row_bytes_(row_stride * sizeof(Element)),
        head_bytes_(set.block.head_dim * sizeof(Element)) {
    const uintptr_t heads = set.count;
    // A share is one piece of memory: rows follow one another, or it lies within a row.
    in_order_ = row_bytes_ == heads * head_bytes_ || heads % kCount == 0;
    for (uintptr_t h = 0; h < heads; ++h) {
      begin_[h] = static_cast<const Element*>(set.heads[h].*side) + tile.row * row_stride;
      in_order_ &= Address(h) == Address(0) + h * head_bytes_;
    }
    // Rows that are read together are on their way already.
    const uintptr_t rows_ahead =
        std::max<uintptr_t>(CeilDiv(kAheadBytes, heads * head_bytes_), kCount);
    for (uintptr_t h = 0; h < heads; ++h) {
      const uintptr_t share = h * kCount / heads * row_bytes_ + h * kCount % heads * head_bytes_;
      ahead_[h] = rows_ahead * row_bytes_ + (in_order_ ? Address(0) + share : Address(h));
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
    block.ahead = {ahead_[head] + first * row_bytes_, in_order_ ? head_bytes_ : row_bytes_,
                   in_order_};
    return block;
  }

 private:
  uintptr_t Address(uintptr_t head) const { return reinterpret_cast<uintptr_t>(begin_[head]); }

  int64_t row_stride_;
  int64_t last_;
  uintptr_t row_bytes_;
  uintptr_t head_bytes_;
  bool in_order_;
  const Element* begin_[kFewRowsHeads];
  uintptr_t ahead_[kFewRowsHeads];
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
