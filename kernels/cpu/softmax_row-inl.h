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

template <class Arithmetic>
HWY_INLINE float MaxOfRow(const float* HWY_RESTRICT row, IndexRange panels) {
  const FloatTag d;
  FloatVec low = hn::Set(d, -std::numeric_limits<float>::infinity());
  FloatVec high = low;
  for (int64_t j = panels.begin; j < panels.end; j += kPanelWidth) {
    const float* at = row + Arithmetic::InScores(j);
    low = hn::Max(hn::Load(d, at), low);
    high = hn::Max(hn::Load(d, at + kLanes), high);
  }
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(low, high)));
}

// Scores to weights 2^(factor * score - max), as the arithmetic's RowsTimesPanel takes them. Their
// sum is added to the state's.
template <class Arithmetic>
HWY_INLINE void WeighRow(float* HWY_RESTRICT row, IndexRange panels, float score_factor,
                         SoftmaxState<float>& state) {
  const FloatTag d;
  const FloatVec factor = hn::Set(d, score_factor);
  const FloatVec shift = hn::Set(d, SafeMax(state.max));
  FloatVec low_sum = hn::Zero(d);
  FloatVec high_sum = hn::Zero(d);
  for (int64_t j = panels.begin; j < panels.end; j += kPanelWidth) {
    float* at = row + Arithmetic::InScores(j);
    const FloatVec low = Exp2(d, hn::MulSub(hn::Load(d, at), factor, shift));
    const FloatVec high = Exp2(d, hn::MulSub(hn::Load(d, at + kLanes), factor, shift));
    Arithmetic::StoreWeights(low, high, at);
    low_sum = hn::Add(low_sum, low);
    high_sum = hn::Add(high_sum, high);
  }
  state.sum += hn::GetLane(hn::SumOfLanes(d, hn::Add(low_sum, high_sum)));
}

// Turns kRows rows of scores, kRowStride apart, into weights in place, exactly zero outside
// `visible`, and updates the rows' states; rescale[m] is the factor for row m's output. Columns
// [begin, end), whole panels. Rows are done side by side: alone each would wait for its own
// maximum.
template <class Arithmetic, int kRows = Arithmetic::kRows>
HWY_INLINE void SoftmaxRows(float* HWY_RESTRICT scores, int64_t begin, int64_t end,
                            const IndexRange* visible, float score_factor,
                            SoftmaxState<float>* states, float* rescale) {
  IndexRange panels[kRows];
  float max[kRows];
  for (int m = 0; m < kRows; ++m) {
    float* row = scores + m * Arithmetic::kRowStride;
    panels[m] = MaskScores<Arithmetic>(row, begin, end, visible[m]);
    max[m] = MaxOfRow<Arithmetic>(row, panels[m]);
  }
  for (int m = 0; m < kRows; ++m) {
    rescale[m] = RaiseMax(states[m], score_factor * max[m], [](float x) { return std::exp2(x); });
  }
  for (int m = 0; m < kRows; ++m) {
    WeighRow<Arithmetic>(scores + m * Arithmetic::kRowStride, panels[m], score_factor, states[m]);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
