// SPDX-License-Identifier: Apache-2.0

// The arithmetics that the forward and the backward pass are written over: float32 products, of any
// dtype, here, and products of bfloat16 (bf16_arithmetic-inl.h). Included once per instruction set.
//
// An arithmetic says how operands are packed (words in floats' places, along the summed dimension),
// multiplies groups of kRows rows, and tells what a packed value was.

#if defined(ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#undef ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#else
#define ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/backward_kernel.h"
#include "kernels/cpu/bf16_choice-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/multiplier.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/tile.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

struct F32Arithmetic : FloatRows {
  static constexpr int kRows = kMicroRows;
  // Rows of a query block of the backward pass. With short vectors a block has as much to compute
  // in half as many rows, whose weights stay nearer.
  static constexpr int64_t kBlockRows = kLanes < 16 ? kQueryBlock / 2 : kQueryBlock;
  static_assert(kBlockRows % kRows == 0 && kBlockRows % kPanelWidth == 0);
  // From row to row of scores, or weights, of a key tile.
  static constexpr int64_t kRowStride = kKeyTile;

  // Words of a packed row.
  static int64_t Words(int64_t head_dim) { return head_dim; }
  // Where the score of a column lies in a row. Panels keep together.
  static constexpr int64_t InScores(int64_t column) { return column; }
  // Floats of one panel of "panels" of so many rows, whole panels of keys.
  static int64_t PanelFloats(int64_t rows) { return rows * kPanelWidth; }
  // The operands of StripTimesColumns out of such rows: whole groups, and whole panels.
  static void Strips(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    TransposeGroups<kRows>(staging, rows, head_dim, out);
  }
  static void KeyColumns(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    TransposeGroups<kPanelWidth>(staging, rows, head_dim, out);
  }
  // "panels" of tile.h out of such rows: of a key tile, and, or "dimensions", of a query block.
  static void KeyPanels(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    CopyPanels(staging, rows, kKeyTile, head_dim, out);
  }
  static void QueryPanels(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    CopyPanels(staging, rows, kBlockRows, head_dim, out);
  }

  static void StripTimesColumns(const float* strip, const float* columns, int64_t head_dim,
                                int64_t begin, int64_t end, float* scores) {
    HWY_NAMESPACE::StripTimesColumns(strip, columns, head_dim, begin, end, scores);
  }
  // to[kRows][panel] = factor * to + rows . panel, at least over `keys`: weights of keys beside
  // them are zero. No factor: ones. Of the panel the first `width` columns.
  static void RowsTimesPanel(const float* rows, IndexRange keys, const float* panel, int64_t width,
                             const float* factor, float* to, int64_t to_stride) {
    const float* a = rows + keys.begin;
    const float* b = panel + keys.begin * kPanelWidth;
    TimesPanel<kKeyTile, 1>(a, b, keys.size(), width, factor, to, to_stride);
  }
  // Whether sums over queries are [head_dim][kKeyTile], by DimensionsTimesColumns, rather than
  // [kKeyTile][PaddedHeadDim], by ColumnsTimesPanel.
  static constexpr bool kSumsAreTransposed = false;
  // to[kRows][panel] += columns^T . panel, at least over `rows`, from column `first` on. Of the
  // panel the first `width` columns.
  static void ColumnsTimesPanel(const float* columns, int64_t first, IndexRange rows,
                                const float* panel, int64_t width, float* to, int64_t to_stride) {
    const float* a = columns + rows.begin * kKeyTile + first;
    const float* b = panel + rows.begin * kPanelWidth;
    TimesPanel<1, kKeyTile>(a, b, rows.size(), width, nullptr, to, to_stride);
  }

  // Stores a panel's worth of weights, none infinite, as RowsTimesPanel takes them.
  static void StoreWeights(FloatVec low, FloatVec high, float* to) {
    hn::Store(low, FloatTag(), to);
    hn::Store(high, FloatTag(), to + kLanes);
  }
  // Stores weights and score gradients of kRowsTogether rows that are kRowsApart, the first of them
  // row m of the group that begins at row `first`: as sums over queries and, in the rows of
  // GroupOf, over keys take them. Panel after panel from column 0 on. Infinite ones may become NaN.
  static constexpr int kRowsTogether = 1;
  static constexpr int64_t kRowsApart = 1;
  static bool IsStoredWithEarlier(int64_t) { return false; }
  class Gradients {
   public:
    Gradients(const BackwardScratch& scratch, int64_t first, int64_t m)
        : weights_(scratch.weights + (first + m) * kRowStride),
          d_scores_(scratch.d_scores + (first + m) * kRowStride) {}

    HWY_INLINE void Append(const FloatVec (&weights)[1][kVectors],
                           const FloatVec (&d_scores)[1][kVectors]) {
      StoreWeights(weights[0][0], weights[0][1], weights_);
      StoreWeights(d_scores[0][0], d_scores[0][1], d_scores_);
      weights_ += kPanelWidth;
      d_scores_ += kPanelWidth;
    }

   private:
    float* weights_;
    float* d_scores_;
  };
  // The rows of a group, of what both sums take or of its own.
  static float* GroupOf(float* all, float* /*group*/, int64_t first) {
    return all + first * kRowStride;
  }

  static float InKeyPanels(const float* panels, int64_t key, int64_t c) {
    return InPanels(panels, kKeyTile, key, c);
  }
  static float InQueryPanels(const float* panels, int64_t row, int64_t c) {
    return InPanels(panels, kBlockRows, row, c);
  }
  static float InRow(const float* row, int64_t j) { return row[j]; }
  static float InColumns(const float* columns, int64_t row, int64_t j) {
    return columns[row * kKeyTile + j];
  }

 private:
  static float InPanels(const float* panels, int64_t block, int64_t row, int64_t c) {
    return panels[c / kPanelWidth * kPanelWidth * block + row * kPanelWidth + c % kPanelWidth];
  }
  // to = factor * to + a . panel, of which a vector is enough where `width` is no more than one.
  template <int64_t kStride, int64_t kDepthStride>
  static void TimesPanel(const float* a, const float* panel, int64_t depth, int64_t width,
                         const float* factor, float* to, int64_t to_stride) {
    if (width <= kLanes) {
      TimesVectors<kStride, kDepthStride, 1>(a, panel, depth, factor, to, to_stride);
    } else {
      TimesVectors<kStride, kDepthStride, kVectors>(a, panel, depth, factor, to, to_stride);
    }
  }
  // Calls of their own: inlined among others, their sums no longer all stay in registers.
  template <int64_t kStride, int64_t kDepthStride, int kWide>
  HWY_NOINLINE static void TimesVectors(const float* a, const float* panel, int64_t depth,
                                        const float* factor, float* to, int64_t to_stride) {
    Accumulator<kMicroRows, kWide> acc;
    if (factor == nullptr) {
      Multiply<kStride, kDepthStride>(a, panel, depth, acc);
      AddRows(to, to_stride, acc);
    } else {
      LoadScaled(to, to_stride, factor, acc);
      MultiplyAdd<kStride, kDepthStride>(a, panel, depth, acc);
    }
    StoreRows(acc, to, to_stride);
  }
};

// Runs the body with the arithmetic that is chosen.
template <typename Body>
HWY_INLINE void WithArithmetic(const ArithmeticChoice& choice, const Body& body) {
  if (WithBf16Arithmetic(choice, body)) return;
  body(F32Arithmetic());
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
