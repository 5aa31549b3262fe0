// SPDX-License-Identifier: Apache-2.0

// The two arithmetics that the forward and the backward pass are written over: float32 products, of
// any dtype, and products of bfloat16 pairs (bf16_products.h). Included once per instruction set.
//
// An arithmetic says how operands are packed (kPerWord values to a float's place, along the summed
// dimension), multiplies them in register tiles, and tells what a packed value was.

#if defined(ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#undef ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#else
#define ANNULUS_KERNELS_CPU_ARITHMETIC_INL_H_
#endif

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/tile.h"
#include "kernels/numeric.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

inline constexpr double kLog2E = 1.4426950408889634;
inline constexpr double kLn2 = 0.6931471805599453;

struct F32Arithmetic {
  static constexpr int64_t kPerWord = 1;

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
  // "panels" of tile.h out of such rows.
  static void Panels(const float* staging, int64_t rows, int64_t block, int64_t head_dim,
                     float* out) {
    CopyPanels(staging, rows, block, head_dim, out);
  }

  static void StripTimesColumns(const float* strip, const float* columns, int64_t head_dim,
                                int64_t begin, int64_t end, float* scores) {
    HWY_NAMESPACE::StripTimesColumns(strip, columns, head_dim, begin, end, scores);
  }
  // to[kMicroRows][panel] = factor * to + rows . panel over `words`; rows are kKeyTile apart. No
  // factor: `to` is not read.
  HWY_INLINE static void RowsTimesPanel(const float* rows, const float* panel, int64_t words,
                                        const float* factor, float* to, int64_t to_stride) {
    Accumulator<kMicroRows> acc;
    if (factor == nullptr) {
      SetZero(acc);
    } else {
      LoadScaled(to, to_stride, factor, acc);
    }
    MultiplyAdd<kMicroRows, kKeyTile, 1>(rows, panel, words, acc);
    StoreRows(acc, to, to_stride);
  }
  // to[kMicroRows][panel] = columns^T . panel; columns are neighbours, words kKeyTile apart.
  HWY_INLINE static void ColumnsTimesPanel(const float* columns, const float* panel, int64_t words,
                                           float* to, int64_t to_stride) {
    Accumulator<kMicroRows> acc;
    SetZero(acc);
    MultiplyAdd<kMicroRows, 1, kKeyTile>(columns, panel, words, acc);
    StoreRows(acc, to, to_stride);
  }

  // Makes the first of `count` values of a row what RowsTimesPanel takes.
  static void PackRow(float*, int64_t) {}
  // Makes kMicroRows rows, kKeyTile apart, from row `first` of `matrix` on, what ColumnsTimesPanel
  // takes, in `columns` from its start; `matrix` and `columns` may be one.
  static void PackColumns(const float*, int64_t, int64_t, float*) {}
  // Where PackColumns has put them: `matrix` itself, or `columns`.
  static const float* Columns(const float* matrix, const float*) { return matrix; }

  static float InPanels(const float* panels, int64_t block, int64_t row, int64_t c) {
    return panels[c / kPanelWidth * kPanelWidth * block + row * kPanelWidth + c % kPanelWidth];
  }
  static float InRow(const float* row, int64_t j) { return row[j]; }
  static float InColumns(const float* columns, int64_t row, int64_t j) {
    return columns[row * kKeyTile + j];
  }
};

struct Bf16Arithmetic {
  static constexpr int64_t kPerWord = 2;

  const Bf16Products& products;

  // q is packed as it is, but for the sign of the scale: a multiple would be rounded.
  static float ScoreFactor(float softmax_scale) {
    return softmax_scale == 0.0f ? 1.0f : static_cast<float>(std::fabs(softmax_scale) * kLog2E);
  }
  static float QueryFactor(float softmax_scale) { return std::fabs(softmax_scale); }

  static bool LoadQueries(const HeadRows& q, float softmax_scale, int64_t padded, float* staging) {
    const bool poisoned = Load(q, padded, staging);
    if (softmax_scale > 0.0f) return poisoned;
    const uint32_t keep = softmax_scale == 0.0f ? 0u : ~0u;
    const uint32_t flip = softmax_scale == 0.0f ? 0u : 0x80008000u;
    for (int64_t i = 0; i < q.count * q.head_dim / 2; ++i) {
      staging[i] = std::bit_cast<float>((std::bit_cast<uint32_t>(staging[i]) & keep) ^ flip);
    }
    return poisoned;
  }
  static bool Load(const HeadRows& rows, int64_t padded, float* staging) {
    const int64_t words = rows.head_dim / 2;
    uint32_t poison = 0;
    for (int64_t i = 0; i < rows.count; ++i) {
      float* to = staging + i * words;
      std::memcpy(to, rows.Row(i), words * sizeof(float));
      for (int64_t c = 0; c < words; ++c) {
        const uint32_t word = std::bit_cast<uint32_t>(to[c]);
        poison |= static_cast<uint32_t>((word & 0x7f80u) == 0x7f80u) |
                  static_cast<uint32_t>((word & 0x7f800000u) == 0x7f800000u);
      }
    }
    std::fill(staging + rows.count * words, staging + padded * words, 0.0f);
    return poison != 0;
  }
  static void Panels(const float* staging, int64_t rows, int64_t block, int64_t head_dim,
                     float* out) {
    const auto* bytes = reinterpret_cast<const char*>(staging);
    for (int64_t c = 0; c < head_dim; c += kPanelWidth) {
      const int64_t width = std::min(kPanelWidth, head_dim - c);
      for (int64_t row = 0; row < rows; row += 2) {
        uint16_t low[kPanelWidth] = {};
        uint16_t high[kPanelWidth] = {};
        std::memcpy(low, bytes + 2 * (row * head_dim + c), 2 * width);
        std::memcpy(high, bytes + 2 * ((row + 1) * head_dim + c), 2 * width);
        float* to = out + (c * block + row * kPanelWidth) / 2;
        for (int64_t n = 0; n < kPanelWidth; ++n) to[n] = Pair(low[n], high[n]);
      }
    }
  }

  void StripTimesColumns(const float* strip, const float* columns, int64_t head_dim, int64_t begin,
                         int64_t end, float* scores) const {
    products.strip_times_columns(strip, columns, head_dim / 2, begin, end, scores);
  }
  void RowsTimesPanel(const float* rows, const float* panel, int64_t words, const float* factor,
                      float* to, int64_t to_stride) const {
    products.rows_times_panel(rows, panel, words, factor, to, to_stride);
  }
  void ColumnsTimesPanel(const float* columns, const float* panel, int64_t words, float* to,
                         int64_t to_stride) const {
    products.columns_times_panel(columns, panel, words, to, to_stride);
  }

  void PackRow(float* row, int64_t count) const { products.pair_neighbours(row, count); }
  void PackColumns(const float* matrix, int64_t first, int64_t count, float* columns) const {
    for (int64_t row = first; row < first + kMicroRows; row += 2) {
      products.pair_rows(matrix + row * kKeyTile, matrix + (row + 1) * kKeyTile, count,
                         columns + row / 2 * kKeyTile);
    }
  }
  static const float* Columns(const float*, const float* columns) { return columns; }

  static float InPanels(const float* panels, int64_t block, int64_t row, int64_t c) {
    const int64_t panel = c / kPanelWidth * kPanelWidth;
    return Half(panels[(panel * block + row / 2 * 2 * kPanelWidth) / 2 + c % kPanelWidth], row % 2);
  }
  static float InRow(const float* row, int64_t j) { return Half(row[j / 2], j % 2); }
  static float InColumns(const float* columns, int64_t row, int64_t j) {
    return Half(columns[row / 2 * kKeyTile + j], row % 2);
  }

  static float Pair(uint16_t low, uint16_t high) {
    return std::bit_cast<float>(low | static_cast<uint32_t>(high) << 16);
  }
  static float Half(float word, int64_t half) {
    return Bf16ToFloat(static_cast<uint16_t>(std::bit_cast<uint32_t>(word) >> (16 * half)));
  }
};

// The slow twin of the native products, for the register tile of this instruction set.
struct EmulatedBf16Products {
  static float Dot(float a, float b) {
    return Bf16Arithmetic::Half(a, 0) * Bf16Arithmetic::Half(b, 0) +
           Bf16Arithmetic::Half(a, 1) * Bf16Arithmetic::Half(b, 1);
  }
  static void Tile(const float* a, int64_t row_stride, int64_t word_stride, const float* b,
                   int64_t words, const float* factor, float* to, int64_t to_stride) {
    for (int64_t m = 0; m < kMicroRows; ++m) {
      for (int64_t n = 0; n < kPanelWidth; ++n) {
        float sum = factor == nullptr ? 0.0f : factor[m] * to[m * to_stride + n];
        for (int64_t k = 0; k < words; ++k) {
          sum += Dot(a[m * row_stride + k * word_stride], b[k * kPanelWidth + n]);
        }
        to[m * to_stride + n] = sum;
      }
    }
  }
  static void StripTimesColumns(const float* strip, const float* columns, int64_t words,
                                int64_t begin, int64_t end, float* scores) {
    for (int64_t j = begin; j < end; j += kPanelWidth) {
      Tile(strip, 1, kMicroRows, columns + j * words, words, nullptr, scores + j, kKeyTile);
    }
  }
  static void RowsTimesPanel(const float* rows, const float* panel, int64_t words,
                             const float* factor, float* to, int64_t to_stride) {
    Tile(rows, kKeyTile, 1, panel, words, factor, to, to_stride);
  }
  static void ColumnsTimesPanel(const float* columns, const float* panel, int64_t words, float* to,
                                int64_t to_stride) {
    Tile(columns, 1, kKeyTile, panel, words, nullptr, to, to_stride);
  }
  static void PairNeighbours(float* row, int64_t count) {
    for (int64_t k = 0; k < count / 2; ++k) {
      row[k] = Bf16Arithmetic::Pair(FloatToBf16(row[2 * k]), FloatToBf16(row[2 * k + 1]));
    }
  }
  static void PairRows(const float* low, const float* high, int64_t count, float* words) {
    for (int64_t j = 0; j < count; ++j) {
      words[j] = Bf16Arithmetic::Pair(FloatToBf16(low[j]), FloatToBf16(high[j]));
    }
  }
};

// How bfloat16 tensors are multiplied here and now; null: as float32.
HWY_INLINE const Bf16Products* ChosenBf16Products() {
  static constexpr Bf16Products kEmulated = {
      EmulatedBf16Products::StripTimesColumns, EmulatedBf16Products::RowsTimesPanel,
      EmulatedBf16Products::ColumnsTimesPanel, EmulatedBf16Products::PairNeighbours,
      EmulatedBf16Products::PairRows};
  constexpr bool kFits = kMicroRows == kNativeBf16Rows && kPanelWidth == kNativeBf16Panel;
  switch (CurrentBf16Mode()) {
    case Bf16Mode::kBest:
      return kFits ? NativeBf16Products() : nullptr;
    case Bf16Mode::kEmulated:
      return &kEmulated;
    case Bf16Mode::kConvert:
      break;
  }
  return nullptr;
}

// Runs the body with the arithmetic for operands that are all bfloat16, or not.
template <typename Body>
HWY_INLINE void WithArithmetic(bool all_bf16, const Body& body) {
  const Bf16Products* products = all_bf16 ? ChosenBf16Products() : nullptr;
  if (products != nullptr) {
    body(Bf16Arithmetic{*products});
  } else {
    body(F32Arithmetic());
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
