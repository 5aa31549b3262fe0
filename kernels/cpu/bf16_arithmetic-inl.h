// SPDX-License-Identifier: Apache-2.0

// The arithmetic of bfloat16 products (bf16_products.h), in both forms of left operands. Included
// once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_BF16_ARITHMETIC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_BF16_ARITHMETIC_INL_H_
#undef ANNULUS_KERNELS_CPU_BF16_ARITHMETIC_INL_H_
#else
#define ANNULUS_KERNELS_CPU_BF16_ARITHMETIC_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/backward_kernel.h"
#include "kernels/cpu/bf16_inputs-inl.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/bf16_words-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/tile.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// Where the first piece of a word lies among words that have their other pieces after them.
HWY_INLINE int64_t FirstPiece(int64_t word, int pieces) {
  return word / kLanes * kLanes * pieces + word % kLanes;
}

// Which of some values share a word: those kApart from one another.
template <int64_t kApart>
struct Pairing {
  static int64_t Word(int64_t value) { return value / (2 * kApart) * kApart + value % kApart; }
  static int64_t Half(int64_t value) { return value % (2 * kApart) / kApart; }
};
using KeyPairing = Pairing<kLanes>;

// Where the words of the left operands lie. Sums over queries begin and end at whole kStep words.
struct PairForm {
  static constexpr int kRows = kMicroRows;
  static constexpr int64_t kStep = 1;
  static constexpr bool kSumsAreTransposed = false;

  template <class Inputs>
  static void PackStrip(const float* staging, int64_t head_dim, float* to) {
    Inputs::template PackTransposed<kRows>(staging, head_dim, to);
  }
  static int64_t InStrip(int64_t row, int64_t word, int64_t /*words*/) {
    return word * kRows + row;
  }
  static int64_t InColumns(int64_t column, int64_t word, int /*pieces*/) {
    return word * kKeyTile + column;
  }
  static constexpr int64_t PieceOfColumns() { return kSecondOfColumns; }
  static constexpr int64_t PanelOfColumns(int /*pieces*/) { return kPanelWidth; }
};

struct TileForm {
  static constexpr int kRows = kTileRows;
  static constexpr int64_t kStep = kLanes;
  static constexpr bool kSumsAreTransposed = true;

  template <class Inputs>
  static void PackStrip(const float* staging, int64_t head_dim, float* to) {
    Inputs::template PackRows<kRows>(staging, head_dim, to);
  }
  static int64_t InStrip(int64_t row, int64_t word, int64_t words) { return row * words + word; }
  static int64_t InColumns(int64_t column, int64_t word, int pieces) {
    return column / kPanelWidth * PanelOfColumns(pieces) + FirstPiece(word, pieces) * kPanelWidth +
           column % kPanelWidth;
  }
  static constexpr int64_t PieceOfColumns() { return kLanes * kPanelWidth; }
  static constexpr int64_t PanelOfColumns(int pieces) {
    return kPanelWidth * WordsInPieces(kQueryBlock, pieces);
  }
};

template <class Form, class Inputs>
struct Bf16Arithmetic : Inputs {
  static constexpr int kRows = Form::kRows;
  static constexpr int kPieces = Inputs::kPieces;
  static constexpr int kWeightPieces = PiecesOfWeights(kPieces);
  static constexpr int64_t kBlockRows = kQueryBlock;
  static constexpr int64_t kRowStride = WordsInPieces(kKeyTile, kWeightPieces);
  static constexpr int64_t kDimensionStride = WordsInPieces(kQueryBlock, kPieces);
  static constexpr bool kSumsAreTransposed = Form::kSumsAreTransposed;

  const Bf16Products& products;

  static constexpr int64_t InScores(int64_t column) {
    return WordsInPieces(column / kPanelWidth * kPanelWidth, kWeightPieces) + column % kPanelWidth;
  }
  static int64_t PanelFloats(int64_t rows) { return WordsInPieces(rows, kPieces) * kPanelWidth; }

  static void Strips(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    for (int64_t row = 0; row < rows; row += kRows) {
      Form::template PackStrip<Inputs>(Inputs::Row(staging, row, head_dim), head_dim,
                                       out + row * Inputs::Words(head_dim));
    }
  }
  static void KeyColumns(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    for (int64_t row = 0; row < rows; row += kPanelWidth) {
      Inputs::template PackTransposed<kPanelWidth>(Inputs::Row(staging, row, head_dim), head_dim,
                                                   out + row * Inputs::Words(head_dim));
    }
  }
  static void KeyPanels(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    Panels<kLanes>(staging, rows, head_dim, kKeyTile, out);
  }
  static void QueryPanels(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    if constexpr (kSumsAreTransposed) {
      constexpr int64_t kStepRows = 2 * Form::kStep;
      for (int64_t row = 0; row < rows; row += kStepRows) {
        Inputs::PackDimensions(Inputs::Row(staging, row, head_dim), head_dim, kDimensionStride,
                               out + WordsInPieces(row, kPieces));
      }
      std::fill(out + head_dim * kDimensionStride,
                out + RoundUp(head_dim, kRows) * kDimensionStride, 0.0f);
    } else {
      Panels<Form::kStep>(staging, rows, head_dim, kQueryBlock, out);
    }
  }

  void StripTimesColumns(const float* strip, const float* columns, int64_t head_dim, int64_t begin,
                         int64_t end, float* scores) const {
    products.strip_times_columns(strip, columns, Inputs::Words(head_dim), begin, end, scores);
  }
  void RowsTimesPanel(const float* rows, IndexRange keys, const float* panel, int64_t /*width*/,
                      const float* factor, float* to, int64_t to_stride) const {
    const int64_t begin = PanelFloor(keys.begin);
    const int64_t words = WordsInPieces(PanelCeil(keys.end) - begin, kPieces);
    products.rows_times_panel(rows + InScores(begin), panel + PanelFloats(begin), words, factor, to,
                              to_stride);
  }
  void ColumnsTimesPanel(const float* columns, int64_t first, IndexRange rows, const float* panel,
                         int64_t /*width*/, float* to, int64_t to_stride) const {
    const IndexRange steps = WholeSteps(rows);
    products.sum_over_queries(columns + Form::InColumns(first, steps.begin / 2, kWeightPieces),
                              panel + PanelFloats(steps.begin),
                              WordsInPieces(steps.size(), kPieces), to, to_stride);
  }
  void DimensionsTimesColumns(const float* dimensions, IndexRange rows, const float* columns,
                              int64_t first, float* to, int64_t to_stride) const {
    const IndexRange steps = WholeSteps(rows);
    products.sum_over_queries(dimensions + WordsInPieces(steps.begin, kPieces),
                              columns + Form::InColumns(first, steps.begin / 2, kWeightPieces),
                              WordsInPieces(steps.size(), kWeightPieces), to, to_stride);
  }

  static void StoreWeights(FloatVec low, FloatVec high, float* to) {
    StorePieces<kWeightPieces>(low, high, kLanes, to);
  }
  static constexpr int kRowsTogether = 2;
  static constexpr int64_t kRowsApart = Form::kStep;
  static bool IsStoredWithEarlier(int64_t m) { return QueryPairing::Half(m) != 0; }
  class Gradients {
   public:
    Gradients(const BackwardScratch& scratch, int64_t first, int64_t m) {
      const int64_t column = Form::InColumns(0, QueryPairing::Word(first + m), kWeightPieces);
      weight_columns_ = scratch.weights + column;
      d_score_columns_ = scratch.d_scores + column;
      d_scores_ = scratch.group_d_scores + m * kRowStride;
    }

    HWY_INLINE void Append(const FloatVec (&weights)[2][kVectors],
                           const FloatVec (&d_scores)[2][kVectors]) {
      FloatVec safe[2][kVectors];
      for (int t = 0; t < 2; ++t) {
        for (int n = 0; n < kVectors; ++n) safe[t][n] = NaNUnlessFinite(d_scores[t][n]);
        StoreWeights(safe[t][0], safe[t][1], d_scores_ + t * kRowsApart * kRowStride);
      }
      constexpr int64_t kPiece = Form::PieceOfColumns();
      for (int n = 0; n < kVectors; ++n) {
        StorePieces<kWeightPieces>(safe[0][n], safe[1][n], kPiece, d_score_columns_ + n * kLanes);
        StorePieces<kWeightPieces>(NaNUnlessFinite(weights[0][n]), NaNUnlessFinite(weights[1][n]),
                                   kPiece, weight_columns_ + n * kLanes);
      }
      d_scores_ += InScores(kPanelWidth);
      d_score_columns_ += Form::PanelOfColumns(kWeightPieces);
      weight_columns_ += Form::PanelOfColumns(kWeightPieces);
    }

   private:
    float* weight_columns_;
    float* d_score_columns_;
    float* d_scores_;
  };
  static float* GroupOf(float* /*all*/, float* group, int64_t /*first*/) { return group; }

  static float InKeyPanels(const float* panels, int64_t key, int64_t c) {
    return InPanels<KeyPairing>(panels, kKeyTile, key, c);
  }
  static float InQueryPanels(const float* panels, int64_t row, int64_t c) {
    if constexpr (kSumsAreTransposed) {
      const int64_t word = FirstPiece(QueryPairing::Word(row), kPieces);
      return SumOfPieces(panels + c * kDimensionStride + word, kLanes, kPieces,
                         QueryPairing::Half(row));
    } else {
      return InPanels<QueryPairing>(panels, kQueryBlock, row, c);
    }
  }
  static float InRow(const float* row, int64_t key) {
    return SumOfPieces(row + FirstPiece(KeyPairing::Word(key), kWeightPieces), kLanes,
                       kWeightPieces, KeyPairing::Half(key));
  }
  static float InColumns(const float* columns, int64_t row, int64_t j) {
    const float* word = columns + Form::InColumns(j, QueryPairing::Word(row), kWeightPieces);
    return SumOfPieces(word, Form::PieceOfColumns(), kWeightPieces, QueryPairing::Half(row));
  }

 private:
  using QueryPairing = Pairing<Form::kStep>;

  static IndexRange WholeSteps(IndexRange rows) {
    constexpr int64_t kStepRows = 2 * Form::kStep;
    return {rows.begin / kStepRows * kStepRows, RoundUp(rows.end, kStepRows)};
  }

  // Rows in panels, which are `block` rows long, words of those that are kApart.
  template <int64_t kApart>
  static void Panels(const float* staging, int64_t rows, int64_t head_dim, int64_t block,
                     float* out) {
    for (int64_t low = 0; low < rows; ++low) {
      if (Pairing<kApart>::Half(low) != 0) continue;
      for (int64_t c = 0; c < head_dim; c += kPanelWidth) {
        Inputs::PackPanelWord(Inputs::Row(staging, low, head_dim),
                              Inputs::Row(staging, low + kApart, head_dim), c, head_dim,
                              out + InPanel(block, Pairing<kApart>::Word(low), c));
      }
    }
  }
  static int64_t InPanel(int64_t block, int64_t word, int64_t c) {
    return c / kPanelWidth * PanelFloats(block) + FirstPiece(word, kPieces) * kPanelWidth;
  }
  template <class Pairing>
  static float InPanels(const float* panels, int64_t block, int64_t row, int64_t c) {
    return SumOfPieces(panels + InPanel(block, Pairing::Word(row), c) + c % kPanelWidth,
                       kLanes * kPanelWidth, kPieces, Pairing::Half(row));
  }
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
