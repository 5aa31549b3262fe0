// SPDX-License-Identifier: Apache-2.0

// Rows of tensors as words of bfloat16 (bf16_products.h): those that are bfloat16 as they are, all
// others as float32 in three pieces. Included once per instruction set.
//
// Rows are loaded into a staging first, and packed out of it in one form or several.

#if defined(ANNULUS_KERNELS_CPU_BF16_INPUTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_BF16_INPUTS_INL_H_
#undef ANNULUS_KERNELS_CPU_BF16_INPUTS_INL_H_
#else
#define ANNULUS_KERNELS_CPU_BF16_INPUTS_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/bf16_words-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/tile.h"
#include "kernels/softmax_state.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// A step of kStep words of a row is what products take at once.
template <int64_t kStep>
struct WholeInputs {
  static constexpr int kPieces = 1;

  static int64_t Words(int64_t head_dim) { return RoundUp(head_dim / 2, kStep); }

  // q is packed as it is, but for the sign of the scale: a multiple would be rounded.
  static float ScoreFactor(float softmax_scale) {
    return softmax_scale == 0.0f ? 1.0f : static_cast<float>(std::fabs(softmax_scale) * kLog2E);
  }
  static float QueryFactor(float softmax_scale) { return std::fabs(softmax_scale); }

  // The staging is the words of the rows.
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
      PrefetchRow(rows, i + kRowsAhead);
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

  // to[kRows][words] or, transposed, to[words][kRows] out of kRows rows of staging.
  template <int64_t kRows>
  static void PackRows(const float* staging, int64_t head_dim, float* to) {
    std::copy(staging, staging + kRows * Words(head_dim), to);
  }
  template <int64_t kRows>
  static void PackTransposed(const float* staging, int64_t head_dim, float* to) {
    TransposeGroups<kRows>(staging, kRows, Words(head_dim), to);
  }
  // to[head_dim][stride]: of each dimension the words of kLanes pairs of rows, kLanes apart.
  static void PackDimensions(const float* staging, int64_t head_dim, int64_t stride, float* to) {
    constexpr int64_t kWords = 4;
    const FloatTag d;
    const hn::RebindToUnsigned<FloatTag> du;
    const auto low_halves = hn::Set(du, 0xffffu);
    const auto high_halves = hn::Set(du, 0xffff0000u);
    HWY_ALIGN float words[kWords * 2 * kLanes];
    for (int64_t w = 0; w < head_dim / 2; w += kWords) {
      TransposeBlock(staging + w, Words(head_dim), 2 * kLanes, kWords, words, 2 * kLanes);
      for (int64_t i = 0; i < kWords; ++i) {
        const auto low = hn::BitCast(du, hn::Load(d, words + i * 2 * kLanes));
        const auto high = hn::BitCast(du, hn::Load(d, words + i * 2 * kLanes + kLanes));
        float* at = to + 2 * (w + i) * stride;
        hn::Store(hn::BitCast(d, hn::Or(hn::And(low, low_halves), hn::ShiftLeft<16>(high))), d, at);
        hn::Store(hn::BitCast(d, hn::Or(hn::ShiftRight<16>(low), hn::And(high, high_halves))), d,
                  at + stride);
      }
    }
  }
  static const float* Row(const float* staging, int64_t row, int64_t head_dim) {
    return staging + row * Words(head_dim);
  }
  // Words (low[n], high[n]) of a panel's columns from `c` on.
  static void PackPanelWord(const float* low, const float* high, int64_t c, int64_t head_dim,
                            float* to) {
    const int64_t width = std::min(kPanelWidth, head_dim - c);
    uint16_t low_values[kPanelWidth] = {};
    uint16_t high_values[kPanelWidth] = {};
    std::memcpy(low_values, reinterpret_cast<const char*>(low) + 2 * c, 2 * width);
    std::memcpy(high_values, reinterpret_cast<const char*>(high) + 2 * c, 2 * width);
    for (int64_t n = 0; n < kPanelWidth; ++n) to[n] = WordOf(low_values[n], high_values[n]);
  }
};

struct SplitInputs : FloatRows {
  static constexpr int kPieces = kPiecesOfFloat32;

  static int64_t Words(int64_t head_dim) {
    return WordsInPieces(RoundUp(head_dim, kPanelWidth), kPieces);
  }

  template <int64_t kRows>
  static void PackRows(const float* staging, int64_t head_dim, float* to) {
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t c = 0; c < head_dim; c += kPanelWidth) {
        PackPanelOfRow(staging + row * head_dim, c, head_dim,
                       to + row * Words(head_dim) + WordsInPieces(c, kPieces));
      }
    }
  }
  template <int64_t kRows>
  static void PackTransposed(const float* staging, int64_t head_dim, float* to) {
    constexpr int64_t kPanelWords = WordsInPieces(kPanelWidth, kPieces);
    constexpr int64_t kPanels = std::max<int64_t>(1, 4 / kLanes);  // what TransposeGroups takes
    constexpr int64_t kWords = kPanels * kPanelWords;
    HWY_ALIGN float words[kRows * kWords];
    for (int64_t c = 0; c < head_dim; c += kPanels * kPanelWidth) {
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t panel = 0; panel < kPanels; ++panel) {
          PackPanelOfRow(staging + row * head_dim, c + panel * kPanelWidth, head_dim,
                         words + row * kWords + panel * kPanelWords);
        }
      }
      TransposeGroups<kRows>(words, kRows, kWords, to + WordsInPieces(c, kPieces) * kRows);
    }
  }
  static void PackDimensions(const float* staging, int64_t head_dim, int64_t stride, float* to) {
    constexpr int64_t kColumns = 8;
    const FloatTag d;
    HWY_ALIGN float columns[kColumns * 2 * kLanes];
    for (int64_t c = 0; c < head_dim; c += kColumns) {
      TransposeBlock(staging + c, head_dim, 2 * kLanes, kColumns, columns, 2 * kLanes);
      for (int64_t i = 0; i < kColumns; ++i) {
        const float* from = columns + i * 2 * kLanes;
        StorePieces<kPieces>(NaNUnlessFinite(hn::Load(d, from)),
                             NaNUnlessFinite(hn::Load(d, from + kLanes)), kLanes,
                             to + (c + i) * stride);
      }
    }
  }
  static const float* Row(const float* staging, int64_t row, int64_t head_dim) {
    return staging + row * head_dim;
  }
  static void PackPanelWord(const float* low, const float* high, int64_t c, int64_t head_dim,
                            float* to) {
    for (int64_t n = 0; n < kPanelWidth; n += kLanes) {
      StorePieces<kPieces>(NaNUnlessFinite(LoadUntil(low, c + n, head_dim)),
                           NaNUnlessFinite(LoadUntil(high, c + n, head_dim)), kLanes * kPanelWidth,
                           to + n);
    }
  }

 private:
  static void PackPanelOfRow(const float* row, int64_t c, int64_t head_dim, float* to) {
    StorePieces<kPieces>(LoadUntil(row, c, head_dim), LoadUntil(row, c + kLanes, head_dim), kLanes,
                         to);
  }
  // The lanes from row[c] on; zero from row[end] on, which is not read.
  static FloatVec LoadUntil(const float* row, int64_t c, int64_t end) {
    const FloatTag d;
    if (c + kLanes <= end) return hn::LoadU(d, row + c);
    HWY_ALIGN float lanes[kLanes] = {};
    for (int64_t n = 0; c + n < end; ++n) lanes[n] = row[c + n];
    return hn::Load(d, lanes);
  }
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
