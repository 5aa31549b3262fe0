// SPDX-License-Identifier: Apache-2.0

// Rows of scores against the online softmax. Scores times a positive factor are in units of
// log 2. Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_SOFTMAX_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_SOFTMAX_ROW_INL_H_
#undef ANNULUS_KERNELS_CPU_SOFTMAX_ROW_INL_H_
#else
#define ANNULUS_KERNELS_CPU_SOFTMAX_ROW_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/cpu/exp2-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/tile.h"
#include "kernels/softmax_state.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The state whose natural-log LSE is `lse`, not -inf: max = lse, sum = 1, except that what max
// loses by rounding goes into sum, or it would drift from merge to merge.
HWY_INLINE SoftmaxState<float> StateOfLse(float lse) {
  const double max = lse * kLog2E;
  const float rounded = static_cast<float>(max);
  return {rounded, static_cast<float>(std::exp2(max - rounded))};
}

HWY_INLINE float LseOfState(const SoftmaxState<float>& state) {
  return static_cast<float>(state.max * kLn2 + std::log(static_cast<double>(state.sum)));
}

// Panels of a row that may have a column inside `columns`.
HWY_INLINE IndexRange PanelsOf(IndexRange columns) {
  return {PanelFloor(columns.begin), PanelCeil(columns.end)};
}

// The lanes of the vector from column `at` on that are inside `columns`.
HWY_INLINE auto LanesInside(IndexRange columns, int64_t at) {
  const FloatTag d;
  const auto before = hn::FirstN(d, std::clamp<int64_t>(columns.begin - at, 0, kLanes));
  const auto until = hn::FirstN(d, std::clamp<int64_t>(columns.end - at, 0, kLanes));
  return hn::AndNot(before, until);
}

// Scores of columns [begin, end), whole panels, that are not `visible` to -inf, whose weight is
// zero.
template <class Arithmetic>
HWY_INLINE void MaskScores(float* HWY_RESTRICT row, int64_t begin, int64_t end,
                           IndexRange visible) {
  const FloatTag d;
  const FloatVec minus_infinity = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int64_t panel = begin; panel < end; panel += kPanelWidth) {
    if (panel >= visible.begin && panel + kPanelWidth <= visible.end) continue;
    for (int64_t j = panel; j < panel + kPanelWidth; j += kLanes) {
      float* at = row + Arithmetic::InScores(j);
      hn::Store(hn::IfThenElse(LanesInside(visible, j), hn::Load(d, at), minus_infinity), d, at);
    }
  }
}

struct MaxOfBoth {
  HWY_INLINE FloatVec operator()(FloatVec a, FloatVec b) const { return hn::Max(a, b); }
};
struct SumOfBoth {
  HWY_INLINE FloatVec operator()(FloatVec a, FloatVec b) const { return hn::Add(a, b); }
};

#if HWY_TARGET != HWY_SCALAR
// A vector whose first lanes are the lanes of `a`, `b`, `c` and `e`, each taken together by `op`.
template <class Op>
HWY_INLINE FloatVec ReduceFour(const Op& op, FloatVec a, FloatVec b, FloatVec c, FloatVec e) {
  const FloatTag d;
  const hn::RepartitionToWide<FloatTag> wide;
  const auto halves = [&](FloatVec x, FloatVec y) HWY_ATTR {
    return hn::BitCast(wide, op(hn::InterleaveLower(d, x, y), hn::InterleaveUpper(d, x, y)));
  };
  const auto ab = halves(a, b);
  const auto ce = halves(c, e);
  FloatVec sums = op(hn::BitCast(d, hn::InterleaveLower(wide, ab, ce)),
                     hn::BitCast(d, hn::InterleaveUpper(wide, ab, ce)));
  if constexpr (kLanes >= 16) sums = op(sums, hn::ReverseBlocks(d, sums));
  if constexpr (kLanes >= 8) sums = op(sums, hn::SwapAdjacentBlocks(sums));
  return sums;
}
#endif

// out[m] = the lanes of rows[m], taken together by `op`. Room for kLanes more at the end of `out`.
// Four rows at a time, which takes a third of the shuffles; a row's lanes always in one order.
template <int kRows, class Op>
HWY_INLINE void ReduceRows([[maybe_unused]] const Op& op, const FloatVec (&rows)[kRows],
                           float* out) {
  int m = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; m + 4 <= kRows; m += 4) {
    hn::StoreU(ReduceFour(op, rows[m], rows[m + 1], rows[m + 2], rows[m + 3]), FloatTag(), out + m);
  }
  for (; m < kRows; ++m) out[m] = hn::GetLane(ReduceFour(op, rows[m], rows[m], rows[m], rows[m]));
#else
  for (; m < kRows; ++m) out[m] = hn::GetLane(rows[m]);
#endif
}

// The lanes' maxima of the first rows' scores of columns [begin, end).
template <class Arithmetic, int kAbreast>
HWY_INLINE void MaxOfRows(const float* HWY_RESTRICT scores, int64_t begin, int64_t end,
                          FloatVec* HWY_RESTRICT max) {
  const FloatTag d;
  FloatVec of[kAbreast][kVectors];
  for (auto& vectors : of) {
    for (FloatVec& v : vectors) v = hn::Set(d, -std::numeric_limits<float>::infinity());
  }
  constexpr int64_t kStep = Arithmetic::InScores(kPanelWidth);
  const float* last = scores + Arithmetic::InScores(end);
  for (const float* at = scores + Arithmetic::InScores(begin); at < last; at += kStep) {
#pragma GCC unroll 4
    for (int m = 0; m < kAbreast; ++m) {
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) {
        const float* from = at + m * Arithmetic::kRowStride + n * kLanes;
        of[m][n] = hn::Max(hn::Load(d, from), of[m][n]);
      }
    }
  }
  for (int m = 0; m < kAbreast; ++m) max[m] = hn::Max(of[m][0], of[m][1]);
}

// The first rows' scores of columns [begin, end) to weights 2^(factor * score - max[m]), as the
// arithmetic's RowsTimesPanel takes them; sums: those of the weights by lane.
template <class Arithmetic, int kAbreast>
HWY_INLINE void WeighRows(float* HWY_RESTRICT scores, int64_t begin, int64_t end,
                          float score_factor, const float* max, FloatVec* HWY_RESTRICT sums) {
  const FloatTag d;
  const FloatVec factor = hn::Set(d, score_factor);
  FloatVec shift[kAbreast];
  FloatVec sum[kAbreast][kVectors];
  for (int m = 0; m < kAbreast; ++m) {
    shift[m] = hn::Set(d, SafeMax(max[m]));
    for (FloatVec& v : sum[m]) v = hn::Zero(d);
  }
  constexpr int64_t kStep = Arithmetic::InScores(kPanelWidth);
  const float* last = scores + Arithmetic::InScores(end);
  for (float* at = scores + Arithmetic::InScores(begin); at < last; at += kStep) {
#pragma GCC unroll 4
    for (int m = 0; m < kAbreast; ++m) {
      float* row = at + m * Arithmetic::kRowStride;
      FloatVec weights[kVectors];
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) {
        weights[n] = Exp2(d, hn::MulSub(hn::Load(d, row + n * kLanes), factor, shift[m]));
        sum[m][n] = hn::Add(sum[m][n], weights[n]);
      }
      Arithmetic::StoreWeights(weights[0], weights[1], row);
    }
  }
  for (int m = 0; m < kAbreast; ++m) sums[m] = hn::Add(sum[m][0], sum[m][1]);
}

// SoftmaxState (softmax_state.h) of several rows. Of more than one: room for kLanes more.
struct RowStates {
  float* max;
  float* sum;
};

// RaiseMax of kRows rows to score_factor * block_max: rescale[m] is the factor of row m. Rows past
// the last one, up to a whole vector, are left as they are.
template <int kRows>
HWY_INLINE void RaiseMaxOfRows(const RowStates& states, float* block_max, float score_factor,
                               float* rescale) {
  if constexpr (kRows == 1) {
    SoftmaxState<float> state = {*states.max, *states.sum};
    *rescale = RaiseMax(state, score_factor * *block_max, [](float x) { return std::exp2(x); });
    *states.max = state.max;
    *states.sum = state.sum;
  } else {
    const FloatTag d;
    const FloatVec least = hn::Set(d, -std::numeric_limits<float>::infinity());
    const FloatVec one = hn::Set(d, 1.0f);
    hn::StoreU(least, d, block_max + kRows);
    for (int m = 0; m < kRows; m += kLanes) {
      const FloatVec before = hn::LoadU(d, states.max + m);
      const FloatVec block = hn::Mul(hn::Set(d, score_factor), hn::LoadU(d, block_max + m));
      const FloatVec max = hn::IfThenElse(hn::Lt(before, block), block, before);
      const FloatVec safe = hn::IfThenZeroElse(hn::Eq(max, least), max);
      const FloatVec factor =
          hn::IfThenElse(hn::Eq(before, max), one, Exp2(d, hn::Sub(before, safe)));
      hn::StoreU(max, d, states.max + m);
      hn::StoreU(hn::Mul(hn::LoadU(d, states.sum + m), factor), d, states.sum + m);
      hn::StoreU(factor, d, rescale + m);
    }
  }
}

// Turns kRows rows of scores, kRowStride apart, into weights in place, exactly zero outside
// `visible`, and updates the rows' states; rescale[m] is the factor for row m's output. Columns
// [begin, end), whole panels; not `masked`: all of them are visible to every row.
template <class Arithmetic, int kRows = Arithmetic::kRows>
HWY_INLINE void SoftmaxRows(float* HWY_RESTRICT scores, int64_t begin, int64_t end, bool masked,
                            const IndexRange* visible, float score_factor, const RowStates& states,
                            float* rescale) {
  // Rows that are walked over together: each alone would wait for its own sums, and for its end.
  constexpr int kAbreast = kRows % 2 == 0 ? 2 : 1;
  const auto row = [&](int m) { return scores + m * Arithmetic::kRowStride; };
  for (int m = 0; masked && m < kRows; ++m) MaskScores<Arithmetic>(row(m), begin, end, visible[m]);
  FloatVec by_lane[kRows];
  float of_rows[kRows + kLanes];
  for (int m = 0; m < kRows; m += kAbreast) {
    MaxOfRows<Arithmetic, kAbreast>(row(m), begin, end, by_lane + m);
  }
  ReduceRows(MaxOfBoth(), by_lane, of_rows);
  RaiseMaxOfRows<kRows>(states, of_rows, score_factor, rescale);
  for (int m = 0; m < kRows; m += kAbreast) {
    WeighRows<Arithmetic, kAbreast>(row(m), begin, end, score_factor, states.max + m, by_lane + m);
  }
  ReduceRows(SumOfBoth(), by_lane, of_rows);
  for (int m = 0; m < kRows; ++m) states.sum[m] += of_rows[m];
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
