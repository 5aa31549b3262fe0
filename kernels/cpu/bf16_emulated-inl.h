// SPDX-License-Identifier: Apache-2.0

// The slow twin of the native products of bfloat16 (bf16_products.h), in both forms of left
// operands. Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_BF16_EMULATED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_BF16_EMULATED_INL_H_
#undef ANNULUS_KERNELS_CPU_BF16_EMULATED_INL_H_
#else
#define ANNULUS_KERNELS_CPU_BF16_EMULATED_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/bf16_arithmetic-inl.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/bf16_words-inl.h"
#include "kernels/cpu/microkernel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// The products of `kRows` rows in plain C++.
template <class Form, class Inputs>
struct EmulatedBf16Products {
  using Arithmetic = Bf16Arithmetic<Form, Inputs>;
  static constexpr int kPieces = Arithmetic::kPieces;
  static constexpr int kWeightPieces = Arithmetic::kWeightPieces;

  static void AddWord(float word, const float* b, float* row) {
    for (int64_t n = 0; n < kPanelWidth; ++n) {
      row[n] += HalfOf(word, 0) * HalfOf(b[n], 0) + HalfOf(word, 1) * HalfOf(b[n], 1);
    }
  }
  // to = factor * to.
  static void Scale(const float* factor, float* to, int64_t to_stride) {
    for (int64_t m = 0; m < Form::kRows; ++m) {
      float* row = to + m * to_stride;
      for (int64_t n = 0; n < kPanelWidth; ++n) {
        row[n] *= factor[m];
      }
    }
  }
  // to += a . b, of which `b` has `words` words. Piece p of a's word (m, k) is a[at(m, k, p)].
  template <int kLeft, int kRight, typename At>
  static void AddProduct(const float* a, const At& at, const float* b, int64_t words, float* to,
                         int64_t to_stride) {
    constexpr int kOrders = std::max(kLeft, kRight);
    for (int64_t m = 0; m < Form::kRows; ++m) {
      for (int64_t k = 0; k < words / kRight; ++k) {
        const float* right = b + FirstPiece(k, kRight) * kPanelWidth;
        for (int i = kLeft - 1; i >= 0; --i) {
          for (int j = std::min(kRight, kOrders - i) - 1; j >= 0; --j) {
            AddWord(a[at(m, k, i)], right + j * kLanes * kPanelWidth, to + m * to_stride);
          }
        }
      }
    }
  }
  static void Nothing() {}
  static void StripTimesColumns(const float* strip, const float* columns, int64_t words,
                                int64_t begin, int64_t end, float* scores) {
    const auto at = [=](int64_t m, int64_t k, int piece) {
      return Form::InStrip(m, FirstPiece(k, kPieces) + piece * kLanes, words);
    };
    for (int64_t j = begin; j < end; j += kPanelWidth) {
      float* to = scores + Arithmetic::InScores(j);
      for (int64_t m = 0; m < Form::kRows; ++m) {
        std::fill(to + m * Arithmetic::kRowStride, to + m * Arithmetic::kRowStride + kPanelWidth,
                  0.0f);
      }
      AddProduct<kPieces, kPieces>(strip, at, columns + j * words, words, to,
                                   Arithmetic::kRowStride);
    }
  }
  static void RowsTimesPanel(const float* rows, const float* panel, int64_t words,
                             const float* factor, float* to, int64_t to_stride) {
    const auto at = [](int64_t m, int64_t k, int piece) {
      return m * Arithmetic::kRowStride + FirstPiece(k, kWeightPieces) + piece * kLanes;
    };
    if (factor != nullptr) Scale(factor, to, to_stride);
    AddProduct<kWeightPieces, kPieces>(rows, at, panel, words, to, to_stride);
  }
  static void SumOverQueries(const float* a, const float* panel, int64_t words, float* to,
                             int64_t to_stride) {
    if constexpr (Form::kSumsAreTransposed) {
      const auto at = [](int64_t m, int64_t k, int piece) {
        return m * Arithmetic::kDimensionStride + FirstPiece(k, kPieces) + piece * kLanes;
      };
      AddProduct<kPieces, kWeightPieces>(a, at, panel, words, to, to_stride);
    } else {
      const auto at = [](int64_t m, int64_t k, int piece) {
        return Form::InColumns(m, k, kWeightPieces) + piece * Form::PieceOfColumns();
      };
      AddProduct<kWeightPieces, kPieces>(a, at, panel, words, to, to_stride);
    }
  }
  static constexpr Bf16Products kProducts = {Nothing, Nothing, StripTimesColumns, RowsTimesPanel,
                                             SumOverQueries};
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
