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

// Zeros in the panels [begin, end) but for those of `kept`.
template <class Arithmetic>
HWY_INLINE void ClearAround(IndexRange kept, int64_t begin, int64_t end, float* row) {
  const auto clear = [row](int64_t from, int64_t to) {
    std::fill(row + Arithmetic::InScores(from), row + Arithmetic::InScores(to), 0.0f);
  };
  clear(begin, std::max(begin, std::min(kept.begin, end)));
  clear(std::max(begin, kept.end), end);
}

// Scores of columns [begin, end), whole panels, to what their weights are made of: zeros in the
// panels without a visible column, -inf in the other columns that are not. Returns the panels with
// visible columns.
template <class Arithmetic>
HWY_INLINE IndexRange MaskScores(float* HWY_RESTRICT row, int64_t begin, int64_t end,
                                 IndexRange visible) {
  const FloatTag d;
  const auto mask_panel = [&](int64_t panel) {
    const FloatVec minus_infinity = hn::Set(d, -std::numeric_limits<float>::infinity());
    for (int64_t j = panel; j < panel + kPanelWidth; j += kLanes) {
      float* at = row + Arithmetic::InScores(j);
      hn::Store(hn::IfThenElse(LanesInside(visible, j), hn::Load(d, at), minus_infinity), d, at);
    }
  };
  const IndexRange panels = PanelsOf(visible);
  ClearAround<Arithmetic>(panels, begin, end, row);
  if (panels.begin != visible.begin) mask_panel(panels.begin);
  if (panels.end != visible.end) mask_panel(panels.end - kPanelWidth);
  return panels;
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

// out[m] = the lanes of row(m), taken together by `op`. Room for kLanes more at the end of `out`.
// Four rows at a time, which takes a third of the shuffles; a row's lanes always in one order.
template <int kRows, class Op, typename Row>
HWY_INLINE void ReduceRows([[maybe_unused]] const Op& op, const Row& row, float* out) {
  int m = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; m + 4 <= kRows; m += 4) {
    const FloatVec a = row(m);
    const FloatVec b = row(m + 1);
    const FloatVec c = row(m + 2);
    const FloatVec e = row(m + 3);
    hn::StoreU(ReduceFour(op, a, b, c, e), FloatTag(), out + m);
  }
  for (; m < kRows; ++m) {
    const FloatVec lanes = row(m);
    out[m] = hn::GetLane(ReduceFour(op, lanes, lanes, lanes, lanes));
  }
#else
  for (; m < kRows; ++m) out[m] = hn::GetLane(row(m));
#endif
}

// The lanes' maxima of the row's panels.
template <class Arithmetic>
HWY_INLINE FloatVec MaxOfRow(const float* HWY_RESTRICT row, IndexRange panels) {
  const FloatTag d;
  FloatVec low = hn::Set(d, -std::numeric_limits<float>::infinity());
  FloatVec high = low;
  const float* end = row + Arithmetic::InScores(panels.end);
  constexpr int64_t kStep = Arithmetic::InScores(kPanelWidth);
  for (const float* at = row + Arithmetic::InScores(panels.begin); at < end; at += kStep) {
    low = hn::Max(hn::Load(d, at), low);
    high = hn::Max(hn::Load(d, at + kLanes), high);
  }
  return hn::Max(low, high);
}

// Scores to weights 2^(factor * score - max), as the arithmetic's RowsTimesPanel takes them.
// Returns their sums by lane.
template <class Arithmetic>
HWY_INLINE FloatVec WeighRow(float* HWY_RESTRICT row, IndexRange panels, float score_factor,
                             float max) {
  const FloatTag d;
  const FloatVec factor = hn::Set(d, score_factor);
  const FloatVec shift = hn::Set(d, SafeMax(max));
  FloatVec low_sum = hn::Zero(d);
  FloatVec high_sum = hn::Zero(d);
  const float* end = row + Arithmetic::InScores(panels.end);
  constexpr int64_t kStep = Arithmetic::InScores(kPanelWidth);
  for (float* at = row + Arithmetic::InScores(panels.begin); at < end; at += kStep) {
    const FloatVec low = Exp2(d, hn::MulSub(hn::Load(d, at), factor, shift));
    const FloatVec high = Exp2(d, hn::MulSub(hn::Load(d, at + kLanes), factor, shift));
    Arithmetic::StoreWeights(low, high, at);
    low_sum = hn::Add(low_sum, low);
    high_sum = hn::Add(high_sum, high);
  }
  return hn::Add(low_sum, high_sum);
}

// SoftmaxState (softmax_state.h) of several rows.
struct RowStates {
  float* max;
  float* sum;
};

// RaiseMax of kRows rows to score_factor * block_max: rescale[m] is the factor of row m.
template <int kRows>
HWY_INLINE void RaiseMaxOfRows(const RowStates& states, const float* block_max, float score_factor,
                               float* rescale) {
  if constexpr (kRows % kLanes == 0) {
    const FloatTag d;
    for (int m = 0; m < kRows; m += kLanes) {
      const FloatVec before = hn::LoadU(d, states.max + m);
      const FloatVec block = hn::Mul(hn::Set(d, score_factor), hn::LoadU(d, block_max + m));
      const FloatVec max = hn::IfThenElse(hn::Lt(before, block), block, before);
      const FloatVec least = hn::Set(d, -std::numeric_limits<float>::infinity());
      const FloatVec safe = hn::IfThenZeroElse(hn::Eq(max, least), max);
      const FloatVec one = hn::Set(d, 1.0f);
      const FloatVec factor =
          hn::IfThenElse(hn::Eq(before, max), one, Exp2(d, hn::Sub(before, safe)));
      hn::StoreU(max, d, states.max + m);
      hn::StoreU(hn::Mul(hn::LoadU(d, states.sum + m), factor), d, states.sum + m);
      hn::StoreU(factor, d, rescale + m);
    }
  } else {
    for (int m = 0; m < kRows; ++m) {
      SoftmaxState<float> state = {states.max[m], states.sum[m]};
      rescale[m] =
          RaiseMax(state, score_factor * block_max[m], [](float x) { return std::exp2(x); });
      states.max[m] = state.max;
      states.sum[m] = state.sum;
    }
  }
}

// Turns kRows rows of scores, kRowStride apart, into weights in place, exactly zero outside
// `visible`, and updates the rows' states; rescale[m] is the factor for row m's output. Columns
// [begin, end), whole panels; not `masked`: all of them are visible to every row. Rows are done
// side by side: alone each would wait for its own maximum.
template <class Arithmetic, int kRows = Arithmetic::kRows>
HWY_INLINE void SoftmaxRows(float* HWY_RESTRICT scores, int64_t begin, int64_t end, bool masked,
                            const IndexRange* visible, float score_factor, const RowStates& states,
                            float* rescale) {
  const auto row = [&](int m) { return scores + m * Arithmetic::kRowStride; };
  IndexRange panels[kRows];
  for (int m = 0; m < kRows; ++m) {
    panels[m] =
        masked ? MaskScores<Arithmetic>(row(m), begin, end, visible[m]) : IndexRange{begin, end};
  }
  float of_rows[kRows + kLanes];
  ReduceRows<kRows>(
      MaxOfBoth(), [&](int m) HWY_ATTR { return MaxOfRow<Arithmetic>(row(m), panels[m]); },
      of_rows);
  RaiseMaxOfRows<kRows>(states, of_rows, score_factor, rescale);
  ReduceRows<kRows>(
      SumOfBoth(),
      [&](int m)
          HWY_ATTR { return WeighRow<Arithmetic>(row(m), panels[m], score_factor, states.max[m]); },
      of_rows);
  for (int m = 0; m < kRows; ++m) states.sum[m] += of_rows[m];
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
