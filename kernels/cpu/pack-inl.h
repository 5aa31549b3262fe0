// SPDX-License-Identifier: Apache-2.0

// Packing: rows of any dtype, gathered from a tensor, into the forms that tile.h names. Included
// once per instruction set, because the forms depend on the panel width.

#if defined(ANNULUS_KERNELS_CPU_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_PACK_INL_H_
#undef ANNULUS_KERNELS_CPU_PACK_INL_H_
#else
#define ANNULUS_KERNELS_CPU_PACK_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/tile.h"
#include "kernels/softmax_state.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using PackTag = hn::CappedTag<float, 8>;  // head sizes are multiples of its lanes
using PackVec = hn::Vec<PackTag>;

// The lanes of `d` from `from` on, as floats; exact for every dtype.
template <class D>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D, typename Element>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const Element* from) {
  const hn::Rebind<Element, D> half;
  return hn::PromoteTo(d, hn::LoadU(half, from));
}

// Rows of a head lie apart, in runs too short for the processor to foresee: it is told what will be
// read kRowsAhead rows later.
constexpr int64_t kRowsAhead = 8;
constexpr int kLineBytes = 64;  // of memory, as caches hold it

HWY_INLINE void PrefetchRow(const HeadRows& source, int64_t row) {
  if (row >= source.count) return;
  const auto* bytes = static_cast<const char*>(source.Row(row));
  const int64_t size = source.head_dim * static_cast<int64_t>(DtypeBytes(source.dtype));
  for (int64_t at = 0; at < size; at += kLineBytes) hwy::Prefetch(bytes + at);
}

template <typename Element>
HWY_INLINE bool LoadRowsOf(const HeadRows& source, float factor, float* HWY_RESTRICT out) {
  const PackTag d;
  constexpr int64_t kStep = static_cast<int64_t>(hn::MaxLanes(PackTag()));
  const PackVec f = hn::Set(d, factor);
  PackVec poison = hn::Zero(d);
  for (int64_t i = 0; i < source.count; ++i) {
    const auto* row = static_cast<const Element*>(source.Row(i));
    PrefetchRow(source, i + kRowsAhead);
    for (int64_t c = 0; c < source.head_dim; c += kStep) {
      const PackVec value = LoadFloats(d, row + c);
      poison = hn::MulAdd(value, hn::Zero(d), poison);  // finite * 0 is 0, the rest is NaN
      hn::Store(hn::Mul(value, f), d, out + i * source.head_dim + c);
    }
  }
  return !hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)));
}

// out[row][d] = row `rows[row]` of the head as floats times `factor`, zero rows up to `padded`.
// Returns whether any loaded value was infinite or NaN. Rows of `out` are head_dim apart.
HWY_INLINE bool LoadRows(const HeadRows& source, float factor, int64_t padded, float* out) {
  std::fill(out + source.count * source.head_dim, out + padded * source.head_dim, 0.0f);
  switch (source.dtype) {
    case ANNULUS_F32:
      return LoadRowsOf<float>(source, factor, out);
    case ANNULUS_BF16:
      return LoadRowsOf<hwy::bfloat16_t>(source, factor, out);
    case ANNULUS_F16:
      return LoadRowsOf<hwy::float16_t>(source, factor, out);
  }
  return true;
}

// How arithmetics that pack floats load rows of any dtype.
struct FloatRows {
  // q is packed times scale * log2(e): scores are in units of log 2 as they come.
  static float ScoreFactor(float) { return 1.0f; }
  // What a packed q must be multiplied with to be softmax_scale * q.
  static float QueryFactor(float) { return static_cast<float>(kLn2); }

  // Rows into a staging out of which they are packed, `padded` of them, the last ones zero. Whether
  // any value is NaN or infinite.
  static bool LoadQueries(const HeadRows& q, float softmax_scale, int64_t padded, float* staging) {
    return LoadRows(q, static_cast<float>(softmax_scale * kLog2E), padded, staging);
  }
  static bool Load(const HeadRows& rows, int64_t padded, float* staging) {
    return LoadRows(rows, 1.0f, padded, staging);
  }
};

// to[c * to_stride + r] = from[r * from_stride + c] for 4 rows and 4 columns.
HWY_INLINE void Transpose4x4(const float* HWY_RESTRICT from, int64_t from_stride,
                             float* HWY_RESTRICT to, int64_t to_stride) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t c = 0; c < 4; ++c) {
    for (int64_t r = 0; r < 4; ++r) to[c * to_stride + r] = from[r * from_stride + c];
  }
#else
  const hn::FixedTag<float, 4> d;
  const hn::RepartitionToWide<decltype(d)> d2;
  const auto row0 = hn::LoadU(d, from);
  const auto row1 = hn::LoadU(d, from + from_stride);
  const auto row2 = hn::LoadU(d, from + 2 * from_stride);
  const auto row3 = hn::LoadU(d, from + 3 * from_stride);
  const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d, row0, row1));
  const auto low23 = hn::BitCast(d2, hn::InterleaveLower(d, row2, row3));
  const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d, row0, row1));
  const auto high23 = hn::BitCast(d2, hn::InterleaveUpper(d, row2, row3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, low01, low23)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, low01, low23)), d, to + to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, high01, high23)), d, to + 2 * to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, high01, high23)), d, to + 3 * to_stride);
#endif
}

// The same of `rows` rows and `columns` columns, a multiple of 4.
HWY_INLINE void TransposeBlock(const float* HWY_RESTRICT from, int64_t from_stride, int64_t rows,
                               int64_t columns, float* HWY_RESTRICT to, int64_t to_stride) {
  const int64_t fours = rows / 4 * 4;
  for (int64_t c = 0; c < columns; c += 4) {
    for (int64_t r = 0; r < fours; r += 4) {
      Transpose4x4(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    }
  }
  for (int64_t r = fours; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[c * to_stride + r] = from[r * from_stride + c];
  }
}

// Groups of kWidth rows, each group transposed to [head_dim][kWidth]: "strips" and "columns".
template <int64_t kWidth>
HWY_INLINE void TransposeGroups(const float* HWY_RESTRICT rows, int64_t row_count, int64_t head_dim,
                                float* HWY_RESTRICT out) {
  for (int64_t group = 0; group < row_count; group += kWidth) {
    TransposeBlock(rows + group * head_dim, head_dim, kWidth, head_dim, out + group * head_dim,
                   kWidth);
  }
}

// "panels": kPanelWidth columns of all rows, contiguous; columns past head_dim are zero. Panels are
// `block` rows apart, of which the first `row_count` are written.
HWY_INLINE void CopyPanels(const float* HWY_RESTRICT rows, int64_t row_count, int64_t block,
                           int64_t head_dim, float* HWY_RESTRICT out) {
  const FloatTag d;
  const int64_t whole = head_dim / kPanelWidth * kPanelWidth;
  for (int64_t c = 0; c < whole; c += kPanelWidth) {
    for (int64_t r = 0; r < row_count; ++r) {
      const float* from = rows + r * head_dim + c;
      float* to = out + c * block + r * kPanelWidth;
      hn::Store(hn::LoadU(d, from), d, to);
      hn::Store(hn::LoadU(d, from + kLanes), d, to + kLanes);
    }
  }
  if (whole == head_dim) return;
  for (int64_t r = 0; r < row_count; ++r) {
    float* to = out + whole * block + r * kPanelWidth;
    std::copy(rows + r * head_dim + whole, rows + (r + 1) * head_dim, to);
    std::fill(to + head_dim - whole, to + kPanelWidth, 0.0f);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
