// SPDX-License-Identifier: Apache-2.0

// The arithmetics that the forward and the backward pass are written over: float32 products, of any
// dtype, here, and products of bfloat16 (bf16_arithmetic-inl.h). Included once per instruction set.
//
// An arithmetic says how operands are packed (words of kPerWord values, in a float's place, along
// the summed dimension), multiplies groups of kRows rows, and tells what a packed value was.

#if defined(ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#undef ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#else
#define ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/bf16_arithmetic-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/tile.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

struct F32Arithmetic {
  static constexpr int64_t kPerWord = 1;
  static constexpr int kRows = kMicroRows;
  // Sums begin and end at multiples of it: those over a head or over queries, and those over keys.
  static constexpr int64_t kWordStep = 1;
  static constexpr int64_t kKeyWordStep = 1;

  // Words of a packed row.
  static int64_t Words(int64_t head_dim) { return head_dim; }

  // q is packed times scale * log2(e): scores are in units of log 2 as they come.
  static float ScoreFactor(float) { return 1.0f; }
  // What a packed q must be multiplied with to be softmax_scale * q.
  static float QueryFactor(float) { return static_cast<float>(kLn2); }

  // Rows as words, `padded` of them, the last ones zero. Whether any value is NaN or infinite.
  static bool LoadQueries(const HeadRows& q, float softmax_scale, int64_t padded, float* staging) {
    return LoadRows(q, static_cast<float>(softmax_scale * kLog2E), padded, staging);
  }
  static bool Load(const HeadRows& rows, int64_t padded, float* staging) {
    return LoadRows(rows, 1.0f, padded, staging);
  }
  // The left operand of StripTimesColumns out of such rows, whole groups.
  static void Strips(const float* staging, int64_t rows, int64_t words, float* out) {
    TransposeGroups<kRows>(staging, rows, words, out);
  }
  // "panels" of tile.h out of such rows: of a key tile, and of a query block.
  static void KeyPanels(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    CopyPanels(staging, rows, kKeyTile, head_dim, out);
  }
  static void QueryPanels(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    CopyPanels(staging, rows, kQueryBlock, head_dim, out);
  }

  static void StripTimesColumns(const float* strip, const float* columns, int64_t words,
                                int64_t begin, int64_t end, float* scores) {
    HWY_NAMESPACE::StripTimesColumns(strip, columns, words, begin, end, scores);
  }
  // to[kRows][panel] = factor * to + rows . panel over `words`; rows are kKeyTile apart. No
  // factor: `to` is not read. Of the panel the first `width` columns.
  static void RowsTimesPanel(const float* rows, const float* panel, int64_t words, int64_t width,
                             const float* factor, float* to, int64_t to_stride) {
    if (width <= kLanes) {
      RowsTimesVectors<1>(rows, panel, words, factor, to, to_stride);
    } else {
      RowsTimesVectors<kVectors>(rows, panel, words, factor, to, to_stride);
    }
  }
  // to[kRows][panel] = columns^T . panel over the rows in `words`, from column `first` on. Of the
  // panel the first `width` columns.
  static void ColumnsTimesPanel(const float* columns, int64_t first, IndexRange words,
                                const float* panel, int64_t width, float* to, int64_t to_stride) {
    const float* a = columns + words.begin * kKeyTile + first;
    const float* b = panel + words.begin * kPanelWidth;
    if (width <= kLanes) {
      ColumnsTimesVectors<1>(a, b, words.size(), to, to_stride);
    } else {
      ColumnsTimesVectors<kVectors>(a, b, words.size(), to, to_stride);
    }
  }

  // Stores a panel's worth of weights, none infinite, as RowsTimesPanel takes them.
  static void StoreWeights(FloatVec low, FloatVec high, float* to) {
    hn::Store(low, FloatTag(), to);
    hn::Store(high, FloatTag(), to + kLanes);
  }
  // Makes the first `count` values of a row, whole panels, what RowsTimesPanel takes.
  static void PackRow(float*, int64_t) {}
  // Makes the kRows rows from row `first` of `matrix` on what ColumnsTimesPanel takes, in
  // `columns`.
  static void PackColumns(const float*, int64_t, int64_t, float*) {}
  // Where PackColumns has put them: `matrix` itself, or `columns`.
  static const float* Columns(const float* matrix, const float*) { return matrix; }

  static float InKeyPanels(const float* panels, int64_t key, int64_t c) {
    return InPanels(panels, kKeyTile, key, c);
  }
  static float InQueryPanels(const float* panels, int64_t row, int64_t c) {
    return InPanels(panels, kQueryBlock, row, c);
  }
  static float InRow(const float* row, int64_t j) { return row[j]; }
  static float InColumns(const float* columns, int64_t row, int64_t j) {
    return columns[row * kKeyTile + j];
  }

 private:
  static float InPanels(const float* panels, int64_t block, int64_t row, int64_t c) {
    return panels[c / kPanelWidth * kPanelWidth * block + row * kPanelWidth + c % kPanelWidth];
  }
  // Calls of their own: inlined among others, their sums no longer all stay in registers.
  template <int kWide>
  HWY_NOINLINE static void RowsTimesVectors(const float* rows, const float* panel, int64_t words,
                                            const float* factor, float* to, int64_t to_stride) {
    Accumulator<kMicroRows, kWide> acc;
    if (factor == nullptr) {
      SetZero(acc);
    } else {
      LoadScaled(to, to_stride, factor, acc);
    }
    MultiplyAdd<kKeyTile, 1>(rows, panel, words, acc);
    StoreRows(acc, to, to_stride);
  }
  template <int kWide>
  HWY_NOINLINE static void ColumnsTimesVectors(const float* columns, const float* panel,
                                               int64_t words, float* to, int64_t to_stride) {
    Accumulator<kMicroRows, kWide> acc;
    SetZero(acc);
    MultiplyAdd<1, kKeyTile>(columns, panel, words, acc);
    StoreRows(acc, to, to_stride);
  }
};

// The words, from and to, that hold the values [begin, end), in whole steps of kStep words.
template <int64_t kStep, int64_t kPerWord>
HWY_INLINE IndexRange WholeSteps(IndexRange values) {
  constexpr int64_t kValues = kStep * kPerWord;
  return {values.begin / kValues * kStep, CeilDiv(values.end, kValues) * kStep};
}
template <class Arithmetic>
HWY_INLINE IndexRange WordsOfQueries(IndexRange queries) {
  return WholeSteps<Arithmetic::kWordStep, Arithmetic::kPerWord>(queries);
}
template <class Arithmetic>
HWY_INLINE IndexRange WordsOfKeys(IndexRange keys) {
  return WholeSteps<Arithmetic::kKeyWordStep, Arithmetic::kPerWord>(keys);
}

// Runs the body with the arithmetic for operands that are all bfloat16, or not.
template <typename Body>
HWY_INLINE void WithArithmetic(bool all_bf16, const Body& body) {
  if (all_bf16 && WithBf16Arithmetic(body)) return;
  body(F32Arithmetic());
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
