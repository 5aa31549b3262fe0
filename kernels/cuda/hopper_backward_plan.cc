// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/hopper_plan.h"

namespace annulus::kernels::cuda {
namespace {

constexpr int kKeyRows = BackwardShape<128>::kKeys;
static_assert(kKeyRows == BackwardShape<64>::kKeys);

KernelId BackwardKernelFor(const annulusTensor& q) {
  if (q.dtype == ANNULUS_BF16) {
    return q.head_dim <= 64 ? KernelId::kBackwardHopperBf16_64 : KernelId::kBackwardHopperBf16_128;
  }
  return q.head_dim <= 64 ? KernelId::kBackwardHopperF16_64 : KernelId::kBackwardHopperF16_128;
}

// Rows of float32 that the copy engine adds to.
bool OnSixteenBytes(const annulusTensor& t) {
  return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 &&
         (t.batch_stride | t.row_stride | t.head_stride) % 4 == 0;
}

// Tiles of keys of one KV head after another: the order that their sums in dq come in.
absl::StatusOr<UnitOrder> OrderOf(const annulusAttendBackwardArgs& args,
                                  const SegmentList& kv_list) {
  const int64_t groups = args.k.batch * args.k.heads;
  if (groups > kUnitsMax / std::max<int64_t>(kv_list.tiles, 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a grid of ", kv_list.tiles, " x ", groups, " units, at most ", kUnitsMax));
  }
  return UnitOrder{static_cast<int32_t>(kv_list.tiles), 1, static_cast<int32_t>(args.k.heads),
                   static_cast<int32_t>(groups), static_cast<int32_t>(groups)};
}

}  // namespace

absl::Status CheckHopperTakes(const annulusAttendBackwardArgs& args) {
  const auto refuse = [](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("provider sm90: ", what));
  };
  const annulusDtype dtype = args.q.dtype;
  if (dtype == ANNULUS_F32 || args.k.dtype != dtype || args.v.dtype != dtype ||
      args.d_o.dtype != dtype) {
    return refuse("q, k, v and do are not all bf16 or all f16");
  }
  if (args.q.head_dim > kHeadDimMaxHopper || args.q.head_dim % 8 != 0) {
    return refuse(
        absl::StrCat("head_dim ", args.q.head_dim, ", expected a multiple of 8 up to 128"));
  }
  if (!CanMap(args.q) || !CanMap(args.d_o) || !CanMap(args.k) || !CanMap(args.v)) {
    return refuse("q, k, v or do do not start on 16 bytes with strides of 16 bytes");
  }
  if (!OnSixteenBytes(args.dq) || !OnSixteenBytes(args.dk) || !OnSixteenBytes(args.dv)) {
    return refuse("dq, dk or dv do not start on 16 bytes with strides of 16 bytes");
  }
  const absl::Status q_spans = CheckHopperSpans(args.q_spans, args.q_span_count);
  return q_spans.ok() ? CheckHopperSpans(args.kv_spans, args.kv_span_count) : q_spans;
}

absl::StatusOr<HopperBackwardPlan> PlanHopperBackward(const annulusAttendBackwardArgs& args,
                                                      int blocks_max) {
  const KernelId kernel = BackwardKernelFor(args.q);
  const int query_rows = ShapeOf(kernel).tile_rows;
  HopperBackwardPlan plan = {
      {args.q, query_rows}, {args.d_o, query_rows}, {args.k, kKeyRows}, {args.v, kKeyRows}, 0, {}};
  const auto kv_lists = SegmentLists(args.kv_spans, args.kv_span_count, kKeyRows);
  for (const SegmentList& q_list : SegmentLists(args.q_spans, args.q_span_count, query_rows)) {
    for (const SegmentList& kv_list : kv_lists) {
      const absl::StatusOr<UnitOrder> order = OrderOf(args, kv_list);
      if (!order.ok()) return order.status();
      if (order->Units() == 0) continue;
      plan.turns = std::max(plan.turns, BackwardTurns(q_list.tiles, args.q.heads, args.q.batch));
      HopperBackwardParams params = {};
      params.q_segments = q_list;
      params.kv_segments = kv_list;
      params.dq = args.dq;
      params.dk = args.dk;
      params.dv = args.dv;
      params.lse = args.lse;
      params.delta = args.delta;
      params.mask = args.mask;
      params.softmax_scale = args.softmax_scale;
      params.heads_each = static_cast<int32_t>(args.q.heads / args.k.heads);
      params.dq_row_offset = args.dq_row_offset;
      params.dkv_row_offset = args.dkv_row_offset;
      params.order = *order;
      plan.launches.push_back({kernel, std::min(blocks_max, order->Units()), params});
    }
  }
  return plan;
}

}  // namespace annulus::kernels::cuda
