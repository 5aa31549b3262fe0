// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/launch_plan.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/portable/row_ops.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {
namespace {

constexpr int64_t kBlocksMax = (int64_t{1} << 31) - 1;  // x dimension of a grid

// units * each, or INVALID_ARGUMENT beyond what a grid holds. Neither is negative.
absl::StatusOr<int64_t> BlocksFor(int64_t units, int64_t each) {
  if (each > 0 && units > kBlocksMax / each) {
    return absl::InvalidArgumentError(
        absl::StrCat("a grid of ", units, " x ", each, " blocks, at most ", kBlocksMax));
  }
  return units * each;
}

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The kernel of a family that serves the head size: `smallest` is the one for 64.
KernelId ForHeadDim(KernelId smallest, int64_t head_dim) {
  const int step = head_dim <= 64 ? 0 : head_dim <= 128 ? 1 : 2;
  return static_cast<KernelId>(static_cast<int>(smallest) + step);
}

// The matrix units take three tensors of one 16-bit format, and head sizes up to 128.
KernelId ForwardKernel(const annulusAttendArgs& args) {
  const annulusDtype dtype = args.q.dtype;
  const bool one_format = args.k.dtype == dtype && args.v.dtype == dtype;
  if (!one_format || dtype == ANNULUS_F32 || args.q.head_dim > 128) {
    return ForHeadDim(KernelId::kAttend64, args.q.head_dim);
  }
  return ForHeadDim(
      dtype == ANNULUS_BF16 ? KernelId::kAttendMatrixBf16_64 : KernelId::kAttendMatrixF16_64,
      args.q.head_dim);
}

// Appends the launches of one kernel over every list of the segments that its blocks stand for
// (`own`) and of those it walks over (`other`).
template <typename Params>
absl::Status AppendLaunches(KernelId kernel, const annulusTensor& per_tile, bool tiles_of_queries,
                            const std::vector<SegmentList>& q_lists,
                            const std::vector<SegmentList>& kv_lists, const Params& common,
                            std::vector<PlannedLaunch<Params>>* launches) {
  ANNULUS_ASSIGN_OR_RETURN(const int64_t heads, BlocksFor(per_tile.batch, per_tile.heads));
  for (const SegmentList& q_list : q_lists) {
    for (const SegmentList& kv_list : kv_lists) {
      const int64_t tiles = tiles_of_queries ? q_list.tiles : kv_list.tiles;
      ANNULUS_ASSIGN_OR_RETURN(const int64_t blocks, BlocksFor(tiles, heads));
      if (blocks == 0) continue;
      launches->push_back({kernel, blocks, common});
      launches->back().params.q_segments = q_list;
      launches->back().params.kv_segments = kv_list;
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<SegmentList> SegmentLists(const annulusSpan* spans, size_t count, int tile_rows) {
  std::vector<SegmentList> lists;
  for (size_t i = 0; i < count; ++i) {
    const annulusSpan& span = spans[i];
    if (span.count == 0) continue;
    if (lists.empty() || lists.back().count == kSegmentsMax) {
      lists.emplace_back();
      lists.back().tile_rows = tile_rows;
    }
    SegmentList& list = lists.back();
    list.segments[list.count++] = {span.row, span.position, span.stride, span.count, list.tiles};
    list.tiles += CeilDivide(span.count, tile_rows);
  }
  return lists;
}

absl::StatusOr<std::vector<PlannedLaunch<AttendParams>>> PlanAttend(const annulusAttendArgs& args) {
  const KernelId kernel = ForwardKernel(args);
  const int tile_rows = ShapeOf(kernel).tile_rows;
  const AttendParams common = {{},
                               {},
                               args.q,
                               args.k,
                               args.v,
                               args.o,
                               args.lse,
                               args.mask,
                               args.softmax_scale,
                               args.o_row_offset};
  std::vector<PlannedLaunch<AttendParams>> launches;
  ANNULUS_RETURN_IF_ERROR(AppendLaunches(
      kernel, args.q, true, SegmentLists(args.q_spans, args.q_span_count, tile_rows),
      SegmentLists(args.kv_spans, args.kv_span_count, tile_rows), common, &launches));
  return launches;
}

absl::StatusOr<std::vector<PlannedLaunch<BackwardParams>>> PlanAttendBackward(
    const annulusAttendBackwardArgs& args) {
  const KernelId of_queries = ForHeadDim(KernelId::kQueryGradients64, args.q.head_dim);
  const KernelId of_keys = ForHeadDim(KernelId::kKeyGradients64, args.q.head_dim);
  const int tile_rows = ShapeOf(of_queries).tile_rows;
  const std::vector<SegmentList> q_lists = SegmentLists(args.q_spans, args.q_span_count, tile_rows);
  const std::vector<SegmentList> kv_lists =
      SegmentLists(args.kv_spans, args.kv_span_count, tile_rows);
  const BackwardParams common = {{},
                                 {},
                                 args.q,
                                 args.k,
                                 args.v,
                                 args.d_o,
                                 args.dq,
                                 args.dk,
                                 args.dv,
                                 args.lse,
                                 args.delta,
                                 args.mask,
                                 args.softmax_scale,
                                 args.dq_row_offset,
                                 args.dkv_row_offset};
  std::vector<PlannedLaunch<BackwardParams>> launches;
  ANNULUS_RETURN_IF_ERROR(
      AppendLaunches(of_queries, args.q, true, q_lists, kv_lists, common, &launches));
  ANNULUS_RETURN_IF_ERROR(
      AppendLaunches(of_keys, args.k, false, q_lists, kv_lists, common, &launches));
  return launches;
}

absl::StatusOr<int64_t> BlocksForRows(const annulusTensor& tensor) {
  if (tensor.rows == 0) return 0;
  if (tensor.batch > kBlocksMax / tensor.rows) return BlocksFor(tensor.batch, tensor.rows);
  return BlocksFor(CeilDivide(tensor.batch * tensor.rows, kRowsABlock), tensor.heads);
}

absl::StatusOr<int64_t> BlocksForElements(int64_t count) {
  return BlocksFor(CeilDivide(count, kElementsABlock), 1);
}

}  // namespace annulus::kernels::cuda
