// SPDX-License-Identifier: Apache-2.0

// The arithmetic of bfloat16 products (bf16_products.h), in both forms of left operands, and the
// slow twins of the native ones. For AVX-512, whose panels the native products have, and for plain
// C++. Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_BF16_ARITHMETIC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_BF16_ARITHMETIC_INL_H_
#undef ANNULUS_KERNELS_CPU_BF16_ARITHMETIC_INL_H_
#else
#define ANNULUS_KERNELS_CPU_BF16_ARITHMETIC_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "hwy/highway.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/tile.h"
#include "kernels/numeric.h"
#include "kernels/softmax_state.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// Whether the native products fit the groups and panels of this instruction set.
inline constexpr bool kHasNativeBf16 =
    kMicroRows == kNativePairRows && kPanelWidth == kNativeBf16Panel;
inline constexpr bool kHasBf16Arithmetic =
    HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128;

// Where the words of the left operands lie.
struct PairForm {
  static constexpr int kRows = kMicroRows;
  static constexpr int64_t kWordStep = 1;
  static constexpr int64_t kColumnStride = 1;
  static constexpr int64_t kColumnWordStride = kKeyTile;

  static int64_t StripStride(int64_t) { return 1; }
  static int64_t StripWordStride() { return kRows; }
  static void Strips(const float* staging, int64_t rows, int64_t words, float* out) {
    TransposeGroups<kRows>(staging, rows, words, out);
  }
};

struct TileForm {
  static constexpr int kRows = kTileRows;
  static constexpr int64_t kWordStep = std::max<int64_t>(1, kPanelWidth / 2);
  static constexpr int64_t kColumnStride = kQueryBlock / 2;
  static constexpr int64_t kColumnWordStride = 1;

  static int64_t StripStride(int64_t words) { return words; }
  static int64_t StripWordStride() { return 1; }
  static void Strips(const float* staging, int64_t rows, int64_t words, float* out) {
    std::copy(staging, staging + rows * words, out);
  }
};

// x to the nearest bfloat16, as a float; what lies in the middle goes away from zero. NaN stays NaN
// but for some whose bits run over; a forward row still ends as NaN, since sums are of weights as
// they were.
HWY_INLINE FloatVec RoundToBf16(FloatVec x) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const auto bits = hn::Add(hn::BitCast(du, x), hn::Set(du, 0x8000u));
  return hn::BitCast(d, hn::And(bits, hn::Set(du, 0xffff0000u)));
}

// The words of (low[i], high[i]), both of them bfloat16.
HWY_INLINE FloatVec WordsOfRounded(FloatVec low, FloatVec high) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  return hn::BitCast(d, hn::Or(hn::ShiftRight<16>(hn::BitCast(du, low)), hn::BitCast(du, high)));
}

// A panel of weights, which are finite or NaN, as words and second words.
HWY_INLINE void StoreSplit(FloatVec low, FloatVec high, float* to) {
  const FloatTag d;
  const FloatVec first_low = RoundToBf16(low);
  const FloatVec first_high = RoundToBf16(high);
  hn::Store(WordsOfRounded(first_low, first_high), d, to);
  hn::Store(
      WordsOfRounded(RoundToBf16(hn::Sub(low, first_low)), RoundToBf16(hn::Sub(high, first_high))),
      d, to + kLanes);
}

// x, but one plain NaN for infinities and every NaN: what StoreSplit takes.
HWY_INLINE FloatVec NaNUnlessFinite(FloatVec x) {
  const FloatTag d;
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, std::numeric_limits<float>::infinity())), x,
                        hn::Set(d, std::numeric_limits<float>::quiet_NaN()));
}

template <class Form>
struct Bf16Arithmetic {
  static constexpr int64_t kPerWord = 2;
  static constexpr int kRows = Form::kRows;
  static constexpr int64_t kWordStep = Form::kWordStep;
  static constexpr int64_t kKeyWordStep = kLanes;

  const Bf16Products& products;

  static int64_t Words(int64_t head_dim) { return RoundUp(head_dim / 2, kWordStep); }

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
    for (int64_t i = 0; i < q.count * Words(q.head_dim); ++i) {
      staging[i] = std::bit_cast<float>((std::bit_cast<uint32_t>(staging[i]) & keep) ^ flip);
    }
    return poisoned;
  }
  static bool Load(const HeadRows& rows, int64_t padded, float* staging) {
    const int64_t words = Words(rows.head_dim);
    const int64_t real = rows.head_dim / 2;
    uint32_t poison = 0;
    for (int64_t i = 0; i < rows.count; ++i) {
      float* to = staging + i * words;
      std::memcpy(to, rows.Row(i), real * sizeof(float));
      std::fill(to + real, to + words, 0.0f);
      for (int64_t c = 0; c < real; ++c) {
        const uint32_t word = std::bit_cast<uint32_t>(to[c]);
        poison |= static_cast<uint32_t>((word & 0x7f80u) == 0x7f80u) |
                  static_cast<uint32_t>((word & 0x7f800000u) == 0x7f800000u);
      }
    }
    std::fill(staging + rows.count * words, staging + padded * words, 0.0f);
    return poison != 0;
  }
  static void Strips(const float* staging, int64_t rows, int64_t words, float* out) {
    Form::Strips(staging, rows, words, out);
  }
  static void KeyPanels(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    for (int64_t row = 0; row < rows; row += kPanelWidth) {
      for (int64_t i = 0; i < kLanes; ++i) {
        WordRow(staging, row + i, row + i + kLanes, head_dim, kKeyTile, row / 2 + i, out);
      }
    }
  }
  static void QueryPanels(const float* staging, int64_t rows, int64_t head_dim, float* out) {
    for (int64_t row = 0; row < rows; row += 2) {
      WordRow(staging, row, row + 1, head_dim, kQueryBlock, row / 2, out);
    }
  }

  void StripTimesColumns(const float* strip, const float* columns, int64_t words, int64_t begin,
                         int64_t end, float* scores) const {
    products.strip_times_columns(strip, columns, words, begin, end, scores);
  }
  void RowsTimesPanel(const float* rows, const float* panel, int64_t words, int64_t /*width*/,
                      const float* factor, float* to, int64_t to_stride) const {
    products.rows_times_panel(rows, panel, words, factor, to, to_stride);
  }
  void ColumnsTimesPanel(const float* columns, int64_t first, IndexRange words, const float* panel,
                         int64_t /*width*/, float* to, int64_t to_stride) const {
    products.columns_times_panel(columns + InColumns(first, words.begin),
                                 panel + words.begin * kPanelWidth, words.size(), to, to_stride);
  }

  static void StoreWeights(FloatVec low, FloatVec high, float* to) { StoreSplit(low, high, to); }
  static void PackRow(float* row, int64_t count) {
    const FloatTag d;
    for (int64_t j = 0; j < count; j += kPanelWidth) {
      StoreSplit(NaNUnlessFinite(hn::Load(d, row + j)),
                 NaNUnlessFinite(hn::Load(d, row + j + kLanes)), row + j);
    }
  }
  void PackColumns(const float* matrix, int64_t first, int64_t count, float* columns) const {
    products.pack_columns(matrix + first * kKeyTile, count, columns + InColumns(0, first / 2));
  }
  static const float* Columns(const float*, const float* columns) { return columns; }

  static float InKeyPanels(const float* panels, int64_t key, int64_t c) {
    const int64_t word = key / kPanelWidth * kLanes + key % kLanes;
    return Half(WordInPanels(panels, kKeyTile, word, c), key % kPanelWidth / kLanes);
  }
  static float InQueryPanels(const float* panels, int64_t row, int64_t c) {
    return Half(WordInPanels(panels, kQueryBlock, row / 2, c), row % 2);
  }
  static float InRow(const float* row, int64_t key) {
    const float* word = row + key / kPanelWidth * kPanelWidth + key % kLanes;
    const int64_t half = key % kPanelWidth / kLanes;
    return Half(word[0], half) + Half(word[kLanes], half);
  }
  static float InColumns(const float* columns, int64_t row, int64_t j) {
    const float* word = columns + InColumns(j, row / 2);
    return Half(word[0], row % 2) + Half(word[kSecondOfColumns], row % 2);
  }
  // Where the word of column `column` lies.
  static int64_t InColumns(int64_t column, int64_t word) {
    return column * Form::kColumnStride + word * Form::kColumnWordStride;
  }

  static float Pair(uint16_t low, uint16_t high) {
    return std::bit_cast<float>(low | static_cast<uint32_t>(high) << 16);
  }
  static float Half(float word, int64_t half) {
    return Bf16ToFloat(static_cast<uint16_t>(std::bit_cast<uint32_t>(word) >> (16 * half)));
  }

 private:
  // The words of the rows `low` and `high` of staging, in all panels, which are `block` rows long.
  static void WordRow(const float* staging, int64_t low, int64_t high, int64_t head_dim,
                      int64_t block, int64_t word, float* out) {
    const auto* bytes = reinterpret_cast<const char*>(staging);
    const int64_t row_bytes = Words(head_dim) * static_cast<int64_t>(sizeof(float));
    for (int64_t c = 0; c < head_dim; c += kPanelWidth) {
      const int64_t width = std::min(kPanelWidth, head_dim - c);
      uint16_t low_values[kPanelWidth] = {};
      uint16_t high_values[kPanelWidth] = {};
      std::memcpy(low_values, bytes + low * row_bytes + 2 * c, 2 * width);
      std::memcpy(high_values, bytes + high * row_bytes + 2 * c, 2 * width);
      float* to = out + c * block / 2 + word * kPanelWidth;
      for (int64_t n = 0; n < kPanelWidth; ++n) to[n] = Pair(low_values[n], high_values[n]);
    }
  }
  static float WordInPanels(const float* panels, int64_t block, int64_t word, int64_t c) {
    const int64_t panel = c / kPanelWidth * kPanelWidth;
    return panels[panel * block / 2 + word * kPanelWidth + c % kPanelWidth];
  }
};

// The slow twin of the native products.
template <class Form>
struct EmulatedBf16Products {
  using Arithmetic = Bf16Arithmetic<Form>;

  static void AddWord(float word, const float* b, float* row) {
    for (int64_t n = 0; n < kPanelWidth; ++n) {
      row[n] += Arithmetic::Half(word, 0) * Arithmetic::Half(b[n], 0) +
                Arithmetic::Half(word, 1) * Arithmetic::Half(b[n], 1);
    }
  }
  // to = factor * to, or zero without one.
  static void Scale(const float* factor, float* to, int64_t to_stride) {
    for (int64_t m = 0; m < Form::kRows; ++m) {
      float* row = to + m * to_stride;
      for (int64_t n = 0; n < kPanelWidth; ++n) {
        row[n] = factor == nullptr ? 0.0f : factor[m] * row[n];
      }
    }
  }
  // to += a . b. `second`: how far the second words of `a` lie after the first; 0 for none.
  static void AddProduct(const float* a, int64_t row_stride, int64_t word_stride, int64_t second,
                         const float* b, int64_t words, float* to, int64_t to_stride) {
    for (int64_t m = 0; m < Form::kRows; ++m) {
      for (int64_t k = 0; k < words; ++k) {
        const float* word = a + m * row_stride + k * word_stride;
        AddWord(word[0], b + k * kPanelWidth, to + m * to_stride);
        if (second != 0) AddWord(word[second], b + k * kPanelWidth, to + m * to_stride);
      }
    }
  }
  static void Nothing() {}
  static void StripTimesColumns(const float* strip, const float* columns, int64_t words,
                                int64_t begin, int64_t end, float* scores) {
    for (int64_t j = begin; j < end; j += kPanelWidth) {
      Scale(nullptr, scores + j, kKeyTile);
      AddProduct(strip, Form::StripStride(words), Form::StripWordStride(), 0, columns + j * words,
                 words, scores + j, kKeyTile);
    }
  }
  static void RowsTimesPanel(const float* rows, const float* panel, int64_t words,
                             const float* factor, float* to, int64_t to_stride) {
    Scale(factor, to, to_stride);
    for (int64_t k = 0; k < words; k += kLanes) {
      AddProduct(rows + 2 * k, kKeyTile, 1, kLanes, panel + k * kPanelWidth, kLanes, to, to_stride);
    }
  }
  static void ColumnsTimesPanel(const float* columns, const float* panel, int64_t words, float* to,
                                int64_t to_stride) {
    Scale(nullptr, to, to_stride);
    AddProduct(columns, Form::kColumnStride, Form::kColumnWordStride, kSecondOfColumns, panel,
               words, to, to_stride);
  }
  static void PackColumns(const float* matrix, int64_t count, float* columns) {
    for (int64_t k = 0; k < Form::kRows / 2; ++k) {
      const float* low = matrix + 2 * k * kKeyTile;
      const float* high = low + kKeyTile;
      for (int64_t j = 0; j < count; ++j) {
        float* word = columns + Arithmetic::InColumns(j, k);
        word[0] = Rounded(low[j], high[j]);
        word[kSecondOfColumns] = Rounded(Rest(low[j]), Rest(high[j]));
      }
    }
  }
  static float Rounded(float low, float high) {
    return Arithmetic::Pair(FloatToBf16(low), FloatToBf16(high));
  }
  static float Rest(float value) {
    const float first = Bf16ToFloat(FloatToBf16(value));
    return std::isfinite(first) ? value - first : 0.0f;
  }

  static constexpr Bf16Products kProducts = {Nothing,        Nothing,           StripTimesColumns,
                                             RowsTimesPanel, ColumnsTimesPanel, PackColumns};
};

template <class Form, typename Body>
HWY_INLINE bool WithBf16Products(const Bf16Products* products, const Body& body) {
  if (products == nullptr) return false;
  products->begin();
  body(Bf16Arithmetic<Form>{*products});
  products->end();
  return true;
}

// Runs the body with the arithmetic that the mode asks for; false, and nothing is done, where
// bfloat16 is to be multiplied as float32.
template <typename Body>
HWY_INLINE bool WithBf16Arithmetic(const Body& body) {
  if constexpr (kHasBf16Arithmetic) {
    const Bf16Mode mode = CurrentBf16Mode();
    if (mode == Bf16Mode::kEmulatedPairs) {
      return WithBf16Products<PairForm>(&EmulatedBf16Products<PairForm>::kProducts, body);
    }
    if (mode == Bf16Mode::kEmulatedTiles) {
      return WithBf16Products<TileForm>(&EmulatedBf16Products<TileForm>::kProducts, body);
    }
    if constexpr (kHasNativeBf16) {
      const ChosenBf16 chosen = ChooseNativeBf16();
      return WithBf16Products<TileForm>(chosen.tiles, body) ||
             WithBf16Products<PairForm>(chosen.pairs, body);
    }
  }
  return false;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
