// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/hopper_plan.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace annulus::kernels::cuda {
namespace {

// Keys and values that blocks in flight read together. The cache of an H100 holds 50 MB.
constexpr int64_t kSectionBytes = int64_t{32} << 20;

bool IsHopper(const DeviceProperties& properties) {
  return properties.capability_major == 9 && properties.capability_minor == 0;
}

KernelId ForwardKernelFor(const annulusTensor& q) {
  if (q.dtype == ANNULUS_BF16) {
    return q.head_dim <= 64 ? KernelId::kAttendHopperBf16_64 : KernelId::kAttendHopperBf16_128;
  }
  return q.head_dim <= 64 ? KernelId::kAttendHopperF16_64 : KernelId::kAttendHopperF16_128;
}

absl::StatusOr<UnitOrder> OrderOf(const annulusAttendArgs& args, const SegmentList& q_list,
                                  const SegmentList& kv_list) {
  const int64_t groups = args.k.batch * args.k.heads;
  const int64_t heads = args.q.batch * args.q.heads;
  if (groups > kUnitsMax || heads > kUnitsMax / std::max<int64_t>(q_list.tiles, 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a grid of ", q_list.tiles, " x ", heads, " units, at most ", kUnitsMax));
  }
  int64_t keys = 0;
  for (int i = 0; i < kv_list.count; ++i) keys += kv_list.segments[i].count;
  const int64_t group_bytes = keys * args.q.head_dim * 2 * 2;
  const int64_t section = std::clamp<int64_t>(kSectionBytes / group_bytes, 1, groups);
  return UnitOrder{static_cast<int32_t>(q_list.tiles),
                   static_cast<int32_t>(args.q.heads / args.k.heads),
                   static_cast<int32_t>(args.k.heads), static_cast<int32_t>(groups),
                   static_cast<int32_t>(section)};
}

}  // namespace

absl::Status CheckHopperSpans(const annulusSpan* spans, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (spans[i].count == 0) continue;
    if (!FitsWalk({spans[i].row, spans[i].position, spans[i].stride, spans[i].count, 0})) {
      return absl::InvalidArgumentError(
          absl::StrCat("provider sm90: a span of ", spans[i].count, " rows from row ", spans[i].row,
                       " with stride ", spans[i].stride, ", which 31 bits do not count"));
    }
  }
  return absl::OkStatus();
}

bool RunsOn(const KernelShape& shape, const DeviceProperties& properties) {
  return !shape.hopper || IsHopper(properties);
}

absl::StatusOr<Provider> ParseProvider(const char* name, const DeviceProperties& properties) {
  const std::string given = name == nullptr ? "auto" : name;
  if (given == "auto") return Provider::kAuto;
  if (given == "portable") return Provider::kPortable;
  if (given == "cudnn") return Provider::kCudnn;
  if (given != "sm90") {
    return absl::InvalidArgumentError(
        absl::StrCat("provider \"", given, "\", expected auto, sm90, portable or cudnn"));
  }
  if (!IsHopper(properties)) {
    return absl::InvalidArgumentError(
        absl::StrCat("provider sm90 needs compute capability 9.0, ", properties.name, " has ",
                     properties.capability_major, ".", properties.capability_minor));
  }
  return Provider::kSm90;
}

absl::Status CheckHopperTakes(const annulusAttendArgs& args) {
  const auto refuse = [](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("provider sm90: ", what));
  };
  if (args.q.dtype == ANNULUS_F32 || args.k.dtype != args.q.dtype || args.v.dtype != args.q.dtype) {
    return refuse(absl::StrCat("q, k, v are ", DtypeName(args.q.dtype), ", ",
                               DtypeName(args.k.dtype), ", ", DtypeName(args.v.dtype),
                               ", expected all bf16 or all f16"));
  }
  if (args.q.head_dim > kHeadDimMaxHopper) {
    return refuse(absl::StrCat("head_dim ", args.q.head_dim, ", expected at most 128"));
  }
  // Scores are compared before they are scaled.
  if (!(args.softmax_scale > 0.0f) || std::isinf(args.softmax_scale)) {
    return refuse(absl::StrCat("softmax_scale ", args.softmax_scale, ", expected above 0"));
  }
  if (!CanMap(args.q) || !CanMap(args.k) || !CanMap(args.v)) {
    return refuse("q, k or v do not start on 16 bytes with strides of 16 bytes");
  }
  if (reinterpret_cast<uintptr_t>(args.o.data) % 8 != 0 ||
      (args.o.batch_stride | args.o.row_stride | args.o.head_stride) % 2 != 0) {
    return refuse("o does not start on 8 bytes with strides of 8 bytes");
  }
  const absl::Status q_spans = CheckHopperSpans(args.q_spans, args.q_span_count);
  return q_spans.ok() ? CheckHopperSpans(args.kv_spans, args.kv_span_count) : q_spans;
}

absl::StatusOr<HopperAttendPlan> PlanHopperAttend(const annulusAttendArgs& args, int blocks_max) {
  const KernelId kernel = ForwardKernelFor(args.q);
  const int query_rows = ShapeOf(kernel).tile_rows;
  HopperAttendPlan plan = {{args.q, query_rows}, {args.k, kWalkKeys}, {args.v, kWalkKeys}, {}};
  const auto kv_lists = SegmentLists(args.kv_spans, args.kv_span_count, kWalkKeys);
  for (const SegmentList& q_list : SegmentLists(args.q_spans, args.q_span_count, query_rows)) {
    for (const SegmentList& kv_list : kv_lists) {
      const absl::StatusOr<UnitOrder> order = OrderOf(args, q_list, kv_list);
      if (!order.ok()) return order.status();
      if (order->Units() == 0) continue;
      const HopperAttendParams params = {{},
                                         {},
                                         {},
                                         q_list,
                                         kv_list,
                                         args.o,
                                         args.lse,
                                         args.mask,
                                         args.softmax_scale,
                                         args.o_row_offset,
                                         *order};
      plan.launches.push_back({kernel, std::min(blocks_max, order->Units()), params});
    }
  }
  return plan;
}

}  // namespace annulus::kernels::cuda
