// SPDX-License-Identifier: Apache-2.0
#include "client/src/proto_convert.h"

namespace annulus::client {

v1::Dtype ToProto(DataType dtype) {
  switch (dtype) {
    case DataType::kF32:
      return v1::DTYPE_F32;
    case DataType::kBf16:
      return v1::DTYPE_BF16;
    case DataType::kF16:
      return v1::DTYPE_F16;
  }
  return v1::DTYPE_UNSPECIFIED;
}

v1::EnsureGroupRequest ToProto(const GroupOptions& options) {
  v1::EnsureGroupRequest request;
  request.set_name(options.name);
  v1::GroupOptions* to = request.mutable_options();
  to->set_size(options.size);
  to->set_window_size(options.window_size);
  to->set_ranks_per_node(options.ranks_per_node);
  to->mutable_inner_link()->set_bytes_per_second(options.inner_link.bytes_per_second);
  to->mutable_inner_link()->set_latency_seconds(options.inner_link.latency_seconds);
  to->mutable_outer_link()->set_bytes_per_second(options.outer_link.bytes_per_second);
  to->mutable_outer_link()->set_latency_seconds(options.outer_link.latency_seconds);
  to->set_transfers_off(options.transfers_off);
  for (const std::string& member : options.members) to->add_members(member);
  to->set_inner_transport(options.inner_transport);
  to->set_outer_transport(options.outer_transport);
  return request;
}

v1::PlanSpec ToProto(const ring::Spec& spec) {
  v1::PlanSpec to;
  to.set_direction(spec.direction == ring::Direction::kForward ? v1::DIRECTION_FORWARD
                                                               : v1::DIRECTION_BACKWARD);
  to.set_query_length(spec.query_length);
  to.set_kv_length(spec.kv_length);
  to.set_context_parallel_size(spec.context_parallel_size);
  to.set_window_size(spec.window_size);
  to.mutable_mask()->set_kind(spec.mask.kind == ring::MaskKind::kCausal ? v1::MASK_KIND_CAUSAL
                                                                        : v1::MASK_KIND_FULL);
  to.mutable_mask()->set_window_left(spec.mask.window_left);
  switch (spec.layout) {
    case ring::Layout::kContiguous:
      to.set_layout(v1::LAYOUT_CONTIGUOUS);
      break;
    case ring::Layout::kZigzag:
      to.set_layout(v1::LAYOUT_ZIGZAG);
      break;
    case ring::Layout::kStriped:
      to.set_layout(v1::LAYOUT_STRIPED);
      break;
  }
  to.set_keep_resident(spec.keep_resident);
  return to;
}

GroupInfo FromProto(const v1::Group& group) {
  GroupInfo info;
  info.name = group.name();
  info.epoch = group.epoch();
  info.window_size = group.options().window_size();
  if (info.window_size == 0) info.window_size = group.options().size();
  info.members.resize(static_cast<size_t>(group.members_size()));
  for (const v1::GroupMember& member : group.members()) {
    if (member.rank() < 0 || member.rank() >= group.members_size()) continue;
    info.members[static_cast<size_t>(member.rank())] = {member.rank(), member.worker(),
                                                        member.address(), member.node()};
  }
  return info;
}

v1::AttendRequest ToProto(const Job& job, const std::string& plan_digest) {
  v1::AttendRequest request;
  request.set_plan_digest(plan_digest);
  request.set_batch(job.batch);
  request.set_query_heads(job.query_heads);
  request.set_kv_heads(job.kv_heads);
  request.set_head_dim(job.head_dim);
  request.set_dtype(ToProto(job.dtype));
  request.set_softmax_scale(job.options.softmax_scale);
  request.set_lse_base(v1::LSE_BASE_NATURAL);
  request.set_overlap(job.options.overlap);
  request.set_gradient_wire(job.options.gradient_wire == GradientWire::kBf16
                                ? v1::GRADIENT_WIRE_BF16
                                : v1::GRADIENT_WIRE_FP32);
  const bool forward = job.spec.direction == ring::Direction::kForward;
  request.set_retain(forward && job.options.retain);
  request.set_forward_request_id(job.forward_request_id);
  request.set_record_timeline(job.options.record_timeline);
  return request;
}

v1::TensorRef* MutableRef(v1::AttendRequest* request, Role role) {
  switch (role) {
    case Role::kQ:
      return request->mutable_q();
    case Role::kK:
      return request->mutable_k();
    case Role::kV:
      return request->mutable_v();
    case Role::kDo:
      return request->mutable_d_o();
    case Role::kO:
      return request->mutable_o();
    case Role::kLse:
      return request->mutable_lse();
    case Role::kDq:
      return request->mutable_dq();
    case Role::kDk:
      return request->mutable_dk();
    case Role::kDv:
      break;
  }
  return request->mutable_dv();
}

void FillRef(const TensorView& view, const ring::TokenRanges& tokens, v1::TensorRef* ref) {
  ref->set_dtype(ToProto(view.dtype));
  ref->set_batch(view.batch);
  ref->set_heads(view.heads);
  ref->set_head_dim(view.head_dim);
  ref->set_rows(ring::TokenCount(tokens));
  for (const ring::TokenRange& range : tokens) {
    v1::TokenRange* to = ref->add_tokens();
    to->set_begin(range.begin);
    to->set_end(range.end);
    to->set_stride(range.stride);
  }
}

namespace {

TimelineOp::Kind FromProto(v1::TimelineOp::Kind kind) {
  switch (kind) {
    case v1::TimelineOp::KIND_SEND:
      return TimelineOp::Kind::kSend;
    case v1::TimelineOp::KIND_RECEIVE:
      return TimelineOp::Kind::kReceive;
    case v1::TimelineOp::KIND_WAIT:
      return TimelineOp::Kind::kWait;
    case v1::TimelineOp::KIND_ACCUMULATE:
      return TimelineOp::Kind::kAccumulate;
    case v1::TimelineOp::KIND_PREPARE:
      return TimelineOp::Kind::kPrepare;
    case v1::TimelineOp::KIND_FINISH:
      return TimelineOp::Kind::kFinish;
    case v1::TimelineOp::KIND_COPY:
      return TimelineOp::Kind::kCopy;
    default:
      return TimelineOp::Kind::kCompute;
  }
}

Timing FromProto(const v1::TimingSummary& from) {
  Timing to;
  to.wall_seconds = from.wall_seconds();
  to.compute_seconds = from.compute_seconds();
  to.comm_seconds = from.comm_seconds();
  to.active_seconds = from.active_seconds();
  to.exposed_comm_seconds = from.exposed_comm_seconds();
  to.exposed_inner_seconds = from.exposed_inner_seconds();
  to.exposed_outer_seconds = from.exposed_outer_seconds();
  to.peer_wait_seconds = from.peer_wait_seconds();
  to.bytes_inner = from.bytes_inner();
  to.bytes_outer = from.bytes_outer();
  to.peak_bytes = from.peak_bytes();
  return to;
}

}  // namespace

void FillReport(const v1::AttendResponse& response, RankReport* report) {
  report->timing = FromProto(response.timing());
  report->start_monotonic_ns = response.start_monotonic_ns();
  for (const v1::StepTiming& step : response.steps()) {
    report->steps.push_back(
        {step.step(), step.compute_seconds(), step.comm_seconds(), step.exposed_seconds()});
  }
  for (const v1::TimelineOp& op : response.timeline()) {
    report->timeline.push_back({FromProto(op.kind()), op.step(), op.level() == v1::LEVEL_OUTER,
                                op.peer(), op.start_ns(), op.end_ns(), op.bytes(), op.label()});
  }
}

ring::Layout ToRing(Layout layout) {
  switch (layout) {
    case Layout::kContiguous:
      return ring::Layout::kContiguous;
    case Layout::kZigzag:
      return ring::Layout::kZigzag;
    case Layout::kStriped:
      break;
  }
  return ring::Layout::kStriped;
}

ring::Mask ToRing(const Mask& mask) {
  return {.kind = mask.kind == MaskKind::kCausal ? ring::MaskKind::kCausal : ring::MaskKind::kFull,
          .window_left = mask.window_left};
}

}  // namespace annulus::client
