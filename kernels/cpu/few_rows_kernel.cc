// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/few_rows_kernel.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/row_map.h"
#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/tile.h"
#include "kernels/softmax_state.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/few_rows_kernel.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/arithmetic-inl.h"
#include "kernels/cpu/few_rows_heads-inl.h"
#include "kernels/cpu/few_rows_scores-inl.h"
#include "kernels/cpu/few_rows_values-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/softmax_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

// What the rows of a block see of a tile, counted from its first key.
struct View {
  IndexRange visible[kFewRowsMax];  // by row
  IndexRange seen;                  // by any row
  bool shared;                      // all rows see the same keys
};

View ViewOf(const FewRowsBlock& block, const annulusSpan& tile) {
  View view;
  view.seen = {tile.count, 0};
  for (int64_t r = 0; r < block.row_count; ++r) {
    IndexRange& visible = view.visible[r];
    visible = VisibleKeys(block.mask, block.row_positions[r], tile);
    if (visible.size() == 0) continue;
    view.seen = {std::min(view.seen.begin, visible.begin), std::max(view.seen.end, visible.end)};
  }
  view.shared = true;
  for (int64_t r = 0; r < block.row_count; ++r) {
    view.shared &= view.visible[r].begin == view.seen.begin && view.visible[r].end == view.seen.end;
  }
  return view;
}

static_assert(kFewRowsMax + kLanes <= kFewRowsStates);

// Turns the scores of a tile into weights and rescales the outputs.
HWY_INLINE void SoftmaxTile(const HeadSet& set, const View& view) {
  const int64_t begin = PanelFloor(view.seen.begin);
  const int64_t end = PanelCeil(view.seen.end);
  const bool masked = !view.shared || begin != view.seen.begin || end != view.seen.end;
  for (int64_t h = 0; h < set.count; ++h) {
    const FewRowsPartial& partial = set.heads[h].partial;
    ForRowGroups(set.block.row_count, [&]<int kRows>(int64_t r) HWY_ATTR {
      float rescale[kRows + kLanes];
      SoftmaxRows<F32Arithmetic, kRows>(set.Scores(h, r), begin, end, masked, view.visible + r,
                                        1.0f, {partial.max + r, partial.sum + r}, rescale);
      for (int m = 0; m < kRows; ++m) {
        if (rescale[m] == 1.0f) continue;
        float* output = set.Output(h, r + m);
        for (int64_t c = 0; c < set.block.head_dim; ++c) output[c] *= rescale[m];
      }
    });
  }
}

template <typename Element>
void AttendTile(const HeadSet& set, const annulusSpan& tile) {
  const View view = ViewOf(set.block, tile);
  if (view.seen.size() <= 0) return;
  ScoreRows<Element>(set, tile, view.seen);
  SoftmaxTile(set, view);
  IndexRange left = view.seen;
  if (view.shared) left.begin = AddBlocks<Element>(set, tile, view.seen);
  AddKeyByKey<Element>(set, tile, left, view.visible);
}

template <typename Element>
void AttendTiles(const HeadSet& set) {
  const FewRowsBlock& block = set.block;
  for (int64_t t = 0; t < block.tile_count; ++t) AttendTile<Element>(set, block.tiles[t]);
}

void AttendFewRowsImpl(const FewRowsHead* heads, int64_t head_count, const FewRowsBlock& block,
                       float* scratch) {
  const int64_t stride = PaddedHeadDim(block.head_dim);
  for (int64_t h = 0; h < head_count; ++h) {
    const FewRowsPartial& partial = heads[h].partial;
    std::fill_n(partial.max, kFewRowsStates, -std::numeric_limits<float>::infinity());
    std::fill_n(partial.sum, kFewRowsStates, 0.0f);
    std::fill_n(partial.output, block.row_count * stride, 0.0f);
  }
  const HeadSet set = {heads, head_count, block, scratch};
  switch (block.dtype) {
    case ANNULUS_F32:
      return AttendTiles<float>(set);
    case ANNULUS_BF16:
      return AttendTiles<hwy::bfloat16_t>(set);
    case ANNULUS_F16:
      return AttendTiles<hwy::float16_t>(set);
  }
}

void PackFewRowsImpl(const HeadRows& rows, float softmax_scale, float* q) {
  const int64_t stride = PaddedHeadDim(rows.head_dim);
  HeadRows row = rows;
  row.count = 1;
  for (int64_t i = 0; i < rows.count; ++i, ++row.rows) {
    LoadRows(row, static_cast<float>(softmax_scale * kLog2E), 1, q + i * stride);
    std::fill(q + i * stride + rows.head_dim, q + (i + 1) * stride, 0.0f);
  }
}

void MergeFewRowsImpl(const FewRowsPartial* partials, int64_t count, int64_t row, int64_t head_dim,
                      float* o, float* lse) {
  SoftmaxState<float> total;
  const bool begun = *lse != -std::numeric_limits<float>::infinity();
  if (begun) total = StateOfLse(*lse);
  const float own = total.sum;
  float max = total.max;
  bool touched = false;
  for (int64_t p = 0; p < count; ++p) {
    const SoftmaxState<float> state = {partials[p].max[row], partials[p].sum[row]};
    if (state.sum == 0.0f) continue;  // false for a NaN, which must stay
    touched = true;
    max = max < state.max ? state.max : max;
  }
  if (!touched) return;
  const float safe = SafeMax(max);
  const float own_weight = begun ? own * std::exp2(total.max - safe) : 0.0f;
  for (int64_t c = 0; c < head_dim; ++c) o[c] = begun ? o[c] * own_weight : 0.0f;
  total = {max, own_weight};
  const int64_t stride = PaddedHeadDim(head_dim);
  for (int64_t p = 0; p < count; ++p) {
    const SoftmaxState<float> state = {partials[p].max[row], partials[p].sum[row]};
    if (state.sum == 0.0f) continue;
    const float weight = std::exp2(state.max - safe);
    total.sum += weight * state.sum;
    const float* from = partials[p].output + row * stride;
    for (int64_t c = 0; c < head_dim; ++c) o[c] += weight * from[c];
  }
  const float inverse = 1.0f / total.sum;
  for (int64_t c = 0; c < head_dim; ++c) o[c] *= inverse;
  *lse = LseOfState(total);
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace annulus::kernels::cpu {

HWY_EXPORT(AttendFewRowsImpl);
HWY_EXPORT(PackFewRowsImpl);
HWY_EXPORT(MergeFewRowsImpl);

void PackFewRows(const HeadRows& rows, float softmax_scale, float* q) {
  HWY_DYNAMIC_DISPATCH(PackFewRowsImpl)(rows, softmax_scale, q);
}

void AttendFewRows(const FewRowsHead* heads, int64_t head_count, const FewRowsBlock& block,
                   float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendFewRowsImpl)(heads, head_count, block, scratch);
}

void MergeFewRows(const FewRowsPartial* partials, int64_t count, int64_t row, int64_t head_dim,
                  float* o, float* lse) {
  HWY_DYNAMIC_DISPATCH(MergeFewRowsImpl)(partials, count, row, head_dim, o, lse);
}

}  // namespace annulus::kernels::cpu
#endif  // HWY_ONCE
