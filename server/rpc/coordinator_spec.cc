// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/ring/planner.h"
#include "server/rpc/coordinator_convert.h"

namespace annulus::rpc {
namespace {

constexpr char kRingAlgorithm[] = "megatron_cp_algo";

absl::StatusOr<ring::Direction> DirectionFromProto(v1::Direction direction) {
  if (direction == v1::DIRECTION_FORWARD) return ring::Direction::kForward;
  if (direction == v1::DIRECTION_BACKWARD) return ring::Direction::kBackward;
  return absl::InvalidArgumentError(
      absl::StrCat("direction: expected FORWARD or BACKWARD, got ", static_cast<int>(direction)));
}

absl::StatusOr<ring::Layout> LayoutFromProto(v1::Layout layout) {
  if (layout == v1::LAYOUT_CONTIGUOUS) return ring::Layout::kContiguous;
  if (layout == v1::LAYOUT_ZIGZAG) return ring::Layout::kZigzag;
  if (layout == v1::LAYOUT_STRIPED) return ring::Layout::kStriped;
  return absl::InvalidArgumentError(absl::StrCat(
      "layout: expected CONTIGUOUS, ZIGZAG or STRIPED, got ", static_cast<int>(layout)));
}

absl::StatusOr<ring::Mask> MaskFromProto(const v1::Mask& mask) {
  ring::Mask out;
  if (mask.has_window_left() && mask.window_left() >= 0) out.window_left = mask.window_left();
  if (mask.kind() == v1::MASK_KIND_FULL) {
    out.kind = ring::MaskKind::kFull;
  } else if (mask.kind() == v1::MASK_KIND_CAUSAL) {
    out.kind = ring::MaskKind::kCausal;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("mask: expected FULL or CAUSAL, got ", static_cast<int>(mask.kind())));
  }
  return out;
}

}  // namespace

absl::StatusOr<ring::Spec> SpecFromProto(const v1::PlanSpec& spec) {
  if (!spec.algorithm().empty() && spec.algorithm() != kRingAlgorithm) {
    return absl::UnimplementedError(absl::StrCat("algorithm: expected ", kRingAlgorithm, ", got '",
                                                 absl::CHexEscape(spec.algorithm().substr(0, 64)),
                                                 "'"));
  }
  if (spec.has_heads()) {
    return absl::UnimplementedError("heads: expected none, head-parallel plans are not there yet");
  }
  ring::Spec out{.query_length = spec.query_length(),
                 .kv_length = spec.kv_length(),
                 .context_parallel_size = spec.context_parallel_size(),
                 .window_size = spec.window_size(),
                 .keep_resident = spec.keep_resident()};
  ANNULUS_ASSIGN_OR_RETURN(out.direction, DirectionFromProto(spec.direction()));
  ANNULUS_ASSIGN_OR_RETURN(out.layout, LayoutFromProto(spec.layout()));
  ANNULUS_ASSIGN_OR_RETURN(out.mask, MaskFromProto(spec.mask()));
  ANNULUS_RETURN_IF_ERROR(ring::ValidateSpec(out));
  return out;
}

}  // namespace annulus::rpc
