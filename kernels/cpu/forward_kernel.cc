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
  SoftmaxState<float> softmax[kQueryBlock];
  float rescale[kQueryBlock];
  IndexRange visible[kQueryBlock];  // keys of the present tile
  bool touched[kQueryBlock];
};

// output[rows] = rescale * output + weights . V over the group's keys.
HWY_INLINE void AddWeightedValues(const float* weights, const KeyTile& tile, IndexRange keys,
                                  int64_t head_dim, const float* rescale, float* output) {
  const int64_t output_stride = PaddedHeadDim(head_dim);
  for (int64_t c = 0; c < head_dim; c += kPanelWidth) {
    Accumulator<kMicroRows> acc;
    LoadScaled(output + c, output_stride, rescale, acc);
    MultiplyAdd<kMicroRows, kKeyTile, 1>(weights + keys.begin,
                                         tile.v_panels + c * kKeyTile + keys.begin * kPanelWidth,
                                         keys.size(), acc);
    StoreRows(acc, output + c, output_stride);
  }
}

// The same row by row over just the keys each row may see: where V holds a NaN or an infinity, a
// masked key's weight of zero must not be multiplied with it.
void AddWeightedValuesByRow(const float* weights, const KeyTile& tile, const IndexRange* visible,
                            int64_t head_dim, const float* rescale, float* output) {
  const int64_t output_stride = PaddedHeadDim(head_dim);
  for (int m = 0; m < kMicroRows; ++m) {
    for (int64_t c = 0; c < head_dim; c += kPanelWidth) {
      float* to = output + m * output_stride + c;
      Accumulator<1> acc;
      LoadScaled(to, output_stride, rescale + m, acc);
      MultiplyAdd<1, kKeyTile, 1>(weights + m * kKeyTile + visible[m].begin,
                                  tile.v_panels + c * kKeyTile + visible[m].begin * kPanelWidth,
                                  visible[m].size(), acc);
      StoreRows(acc, to, output_stride);
    }
  }
}

// kMicroRows rows, from row `first` of the block on, against one key tile.
void AttendGroup(const KeyTile& tile, int64_t head_dim, int64_t first,
                 const ForwardScratch& scratch, BlockState& state) {
  const IndexRange* visible = state.visible + first;
  const GroupRange group = RangeOfGroup(visible);
  if (group.keys.size() == 0) return;
  const int64_t begin = PanelFloor(group.keys.begin);
  const int64_t end = PanelCeil(group.keys.end);
  float* scores = scratch.scores + first * kKeyTile;
  float* output = scratch.output + first * PaddedHeadDim(head_dim);
  StripTimesColumns(scratch.q_strips + first * head_dim, tile.k_columns, head_dim, begin, end,
                    scores);
  for (int m = 0; m < kMicroRows; ++m) {
    SoftmaxState<float>& row = state.softmax[first + m];
    float* row_scores = scores + m * kKeyTile;
    state.rescale[first + m] = group.masked
                                   ? SoftmaxRow<true>(row_scores, begin, end, visible[m], row)
                                   : SoftmaxRow<false>(row_scores, begin, end, visible[m], row);
  }
  const float* rescale = state.rescale + first;
  if (group.masked && !tile.v_finite) {
    AddWeightedValuesByRow(scores, tile, visible, head_dim, rescale, output);
  } else {
    AddWeightedValues(scores, tile, group.keys, head_dim, rescale, output);
  }
}

// The state that is in (o, lse), for `rows` rows, of which block.q.count are real. The identity's o
// is not read.
void LoadState(const ForwardBlock& block, int64_t rows, float* output, BlockState& state) {
  const int64_t stride = PaddedHeadDim(block.q.head_dim);
  std::fill(output, output + rows * stride, 0.0f);
  for (int64_t i = 0; i < rows; ++i) {
    state.softmax[i] = SoftmaxState<float>();
    state.visible[i] = {};
    state.touched[i] = false;
    if (i >= block.q.count) continue;
    const float lse = block.lse.At(i);
    if (lse == -std::numeric_limits<float>::infinity()) continue;
    state.softmax[i] = StateOfLse(lse);
    const float sum = state.softmax[i].sum;
    const float* o = block.o.FloatRow(i);
    for (int64_t c = 0; c < block.q.head_dim; ++c) output[i * stride + c] = o[c] * sum;
  }
}

void StoreState(const ForwardBlock& block, const float* output, const BlockState& state) {
  const int64_t stride = PaddedHeadDim(block.q.head_dim);
  for (int64_t i = 0; i < block.q.count; ++i) {
    const SoftmaxState<float>& row = state.softmax[i];
    if (!state.touched[i] || row.sum == 0.0f) continue;
    const float inverse = 1.0f / row.sum;
    float* o = block.o.FloatRow(i);
    for (int64_t c = 0; c < block.q.head_dim; ++c) o[c] = output[i * stride + c] * inverse;
    block.lse.At(i) = LseOfState(row);
  }
}

// Sets the keys of the tile that each row may see; false when no row sees any.
bool FindVisible(const ForwardBlock& block, const KeyTile& tile, BlockState& state) {
  bool any = false;
  for (int64_t i = 0; i < block.q.count; ++i) {
    state.visible[i] = VisibleKeys(block.mask, block.q_positions[i], tile.positions, tile.count);
    const bool sees = state.visible[i].size() > 0;
    state.touched[i] |= sees;
    any |= sees;
  }
  return any;
}

void AttendBlockImpl(const ForwardBlock& block, const ForwardScratch& scratch) {
  const int64_t head_dim = block.q.head_dim;
  const int64_t rows = (block.q.count + kMicroRows - 1) / kMicroRows * kMicroRows;
  BlockState state;
  LoadState(block, rows, scratch.output, state);
  bool packed = false;
  for (int64_t t = 0; t < block.tile_count; ++t) {
    if (!FindVisible(block, block.tiles[t], state)) continue;
    if (!packed) {
      LoadRows(block.q, static_cast<float>(block.softmax_scale * kLog2E), rows, scratch.staging);
      TransposeGroups<kMicroRows>(scratch.staging, rows, head_dim, scratch.q_strips);
      packed = true;
    }
    for (int64_t first = 0; first < rows; first += kMicroRows) {
      AttendGroup(block.tiles[t], head_dim, first, scratch, state);
    }
  }
  StoreState(block, scratch.output, state);
}

void PackKeyTileImpl(const HeadRows& k, const HeadRows& v, float* staging, KeyTile* tile) {
  const int64_t rows = PanelCeil(k.count);
  LoadRows(k, 1.0f, rows, staging);
  TransposeGroups<kPanelWidth>(staging, rows, k.head_dim, tile->k_columns);
  tile->v_finite = !LoadRows(v, 1.0f, rows, staging);
  CopyPanels(staging, rows, kKeyTile, v.head_dim, tile->v_panels);
}

const char* TargetNameImpl() { return hwy::TargetName(HWY_TARGET); }

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

void AttendBlock(const ForwardBlock& block, const ForwardScratch& scratch) {
  HWY_DYNAMIC_DISPATCH(AttendBlockImpl)(block, scratch);
}

void PackKeyTile(const HeadRows& k, const HeadRows& v, float* staging, KeyTile* tile) {
  HWY_DYNAMIC_DISPATCH(PackKeyTileImpl)(k, v, staging, tile);
}

const char* SimdTargetName() { return HWY_DYNAMIC_DISPATCH(TargetNameImpl)(); }

}  // namespace annulus::kernels::cpu
#endif  // HWY_ONCE
