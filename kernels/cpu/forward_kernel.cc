// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/forward_kernel.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/row_map.h"
#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/tile.h"
#include "kernels/softmax_state.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/forward_kernel.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/arithmetic-inl.h"
#include "kernels/cpu/group_range-inl.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/softmax_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

// What a query block carries from key tile to key tile; scores are in units of log 2.
struct BlockState {
  float max[kQueryBlock + kLanes] = {};
  float sum[kQueryBlock + kLanes] = {};
  float rescale[kQueryBlock + kLanes];
  IndexRange visible[kQueryBlock];  // keys of the present tile
  bool touched[kQueryBlock];
};

// output[rows] = rescale * output + weights . V over the group's keys.
template <class Arithmetic>
HWY_INLINE void AddWeightedValues(const Arithmetic& arithmetic, const float* weights,
                                  const KeyTile& tile, IndexRange keys, int64_t head_dim,
                                  const float* rescale, float* output) {
  const int64_t output_stride = PaddedHeadDim(head_dim);
  for (int64_t c = 0; c < head_dim; c += kPanelWidth) {
    const float* panel = tile.v_panels + c / kPanelWidth * Arithmetic::PanelFloats(kKeyTile);
    arithmetic.RowsTimesPanel(weights, keys, panel, head_dim - c, rescale, output + c,
                              output_stride);
  }
}

// The same over just the keys that each row may see: where V holds a NaN or an infinity, a masked
// key's weight of zero must not be multiplied with it. Slow and rare.
template <class Arithmetic>
void AddWeightedValuesByRow(const Arithmetic&, const float* weights, const KeyTile& tile,
                            const IndexRange* visible, int64_t head_dim, const float* rescale,
                            float* output) {
  for (int m = 0; m < Arithmetic::kRows; ++m) {
    float* to = output + m * PaddedHeadDim(head_dim);
    for (int64_t c = 0; c < head_dim; ++c) {
      float sum = rescale[m] * to[c];
      for (int64_t j = visible[m].begin; j < visible[m].end; ++j) {
        sum += Arithmetic::InRow(weights + m * Arithmetic::kRowStride, j) *
               Arithmetic::InKeyPanels(tile.v_panels, j, c);
      }
      to[c] = sum;
    }
  }
}

// A group of rows, from row `first` of the block on, against one key tile.
template <class Arithmetic>
void AttendGroup(const Arithmetic& arithmetic, const ForwardBlock& block, const KeyTile& tile,
                 int64_t first, const ForwardScratch& scratch, BlockState& state) {
  const int64_t head_dim = block.q.head_dim;
  const IndexRange* visible = state.visible + first;
  const GroupRange group = RangeOfGroup<Arithmetic::kRows>(visible);
  if (group.keys.size() == 0) return;
  const int64_t begin = PanelFloor(group.keys.begin);
  const int64_t end = PanelCeil(group.keys.end);
  const float factor = Arithmetic::ScoreFactor(block.softmax_scale);
  float* scores = scratch.scores;
  float* output = scratch.output + first * PaddedHeadDim(head_dim);
  arithmetic.StripTimesColumns(scratch.q_strips + first * Arithmetic::Words(head_dim),
                               tile.k_columns, head_dim, begin, end, scores);
  float* rescale = state.rescale + first;
  SoftmaxRows<Arithmetic>(scores, begin, end, group.masked, visible, factor,
                          {state.max + first, state.sum + first}, rescale);
  if (group.masked && !tile.v_finite) {
    AddWeightedValuesByRow(arithmetic, scores, tile, visible, head_dim, rescale, output);
  } else {
    AddWeightedValues(arithmetic, scores, tile, group.keys, head_dim, rescale, output);
  }
}

// The state that is in (o, lse), for `rows` rows, of which block.q.count are real. The identity's o
// is not read.
void LoadState(const ForwardBlock& block, int64_t rows, float* output, BlockState& state) {
  const int64_t stride = PaddedHeadDim(block.q.head_dim);
  std::fill(output, output + rows * stride, 0.0f);
  for (int64_t i = 0; i < rows; ++i) {
    const SoftmaxState<float> none;
    state.max[i] = none.max;
    state.sum[i] = none.sum;
    state.visible[i] = {};
    state.touched[i] = false;
    if (i >= block.q.count) continue;
    const float lse = block.lse.At(i);
    if (lse == -std::numeric_limits<float>::infinity()) continue;
    const SoftmaxState<float> carried = StateOfLse(lse);
    state.max[i] = carried.max;
    state.sum[i] = carried.sum;
    const float* o = block.o.FloatRow(i);
    for (int64_t c = 0; c < block.q.head_dim; ++c) output[i * stride + c] = o[c] * carried.sum;
  }
}

void StoreState(const ForwardBlock& block, const float* output, const BlockState& state) {
  const int64_t stride = PaddedHeadDim(block.q.head_dim);
  for (int64_t i = 0; i < block.q.count; ++i) {
    PrefetchRow(block.o, i + kRowsAhead);
    const SoftmaxState<float> row = {state.max[i], state.sum[i]};
    if (!state.touched[i] || row.sum == 0.0f) continue;
    const float inverse = 1.0f / row.sum;
    float* o = block.o.FloatRow(i);
    for (int64_t c = 0; c < block.q.head_dim; ++c) o[c] = output[i * stride + c] * inverse;
    block.lse.At(i) = LseOfState(row);
  }
}

// Sets the keys of the tile that each row may see; false when no row sees any.
bool FindVisible(const ForwardBlock& block, const KeyTile& tile, BlockState& state) {
  if (!VisibleKeysOfRows(block.mask, block.q_positions, block.q.count, tile.positions, tile.count,
                         state.visible)) {
    return false;
  }
  for (int64_t i = 0; i < block.q.count; ++i) state.touched[i] |= state.visible[i].size() > 0;
  return true;
}

template <class Arithmetic>
void AttendBlockOver(const Arithmetic& arithmetic, const ForwardBlock& block,
                     const ForwardScratch& scratch) {
  constexpr int64_t kRows = Arithmetic::kRows;
  const int64_t rows = RoundUp(block.q.count, kRows);
  BlockState state;
  LoadState(block, rows, scratch.output, state);
  bool packed = false;
  for (int64_t t = 0; t < block.tile_count; ++t) {
    if (!FindVisible(block, block.tiles[t], state)) continue;
    if (!packed) {
      Arithmetic::LoadQueries(block.q, block.softmax_scale, rows, scratch.staging);
      Arithmetic::Strips(scratch.staging, rows, block.q.head_dim, scratch.q_strips);
      packed = true;
    }
    for (int64_t first = 0; first < rows; first += kRows) {
      AttendGroup(arithmetic, block, block.tiles[t], first, scratch, state);
    }
  }
  StoreState(block, scratch.output, state);
}

void AttendBlockImpl(const ForwardBlock& block, const ForwardScratch& scratch) {
  WithArithmetic(block.choice,
                 [&](const auto& arithmetic) { AttendBlockOver(arithmetic, block, scratch); });
}

void PackKeyTileImpl(const HeadRows& k, const HeadRows& v, const ArithmeticChoice& choice,
                     float* staging, KeyTile* tile) {
  const int64_t rows = PanelCeil(k.count);
  WithArithmetic(choice, [&]<class Arithmetic>(const Arithmetic&) {
    Arithmetic::Load(k, rows, staging);
    Arithmetic::KeyColumns(staging, rows, k.head_dim, tile->k_columns);
    tile->v_finite = !Arithmetic::Load(v, rows, staging);
    Arithmetic::KeyPanels(staging, rows, v.head_dim, tile->v_panels);
  });
}

const char* TargetNameImpl() { return hwy::TargetName(HWY_TARGET); }
bool RunsMultiplierImpl(Multiplier multiplier) { return CanMultiplyBy(multiplier); }

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace annulus::kernels::cpu {

HWY_EXPORT(AttendBlockImpl);
HWY_EXPORT(PackKeyTileImpl);
HWY_EXPORT(TargetNameImpl);
HWY_EXPORT(RunsMultiplierImpl);

void AttendBlock(const ForwardBlock& block, const ForwardScratch& scratch) {
  HWY_DYNAMIC_DISPATCH(AttendBlockImpl)(block, scratch);
}

void PackKeyTile(const HeadRows& k, const HeadRows& v, const ArithmeticChoice& choice,
                 float* staging, KeyTile* tile) {
  HWY_DYNAMIC_DISPATCH(PackKeyTileImpl)(k, v, choice, staging, tile);
}

const char* SimdTargetName() { return HWY_DYNAMIC_DISPATCH(TargetNameImpl)(); }
bool RunsMultiplier(Multiplier multiplier) {
  return HWY_DYNAMIC_DISPATCH(RunsMultiplierImpl)(multiplier);
}

}  // namespace annulus::kernels::cpu
#endif  // HWY_ONCE
