// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_convert.h"

#include <cmath>
#include <string>
#include <string_view>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/rpc/worker_names.h"
#include "server/rpc/worker_tensor_ref.h"

namespace annulus::rpc {
namespace {

constexpr int kMaxHeads = 4096;
constexpr double kMaxTimeoutSeconds = 366.0 * 86400;

absl::StatusOr<worker::Fence> FenceFromProto(const v1::Fence& fence) {
  ANNULUS_RETURN_IF_ERROR(CheckResourceName("fence.group", fence.group()));
  ANNULUS_RETURN_IF_ERROR(CheckId("fence.request_id", fence.request_id()));
  return worker::Fence{fence.term(), fence.group(), fence.epoch(), fence.incarnation(),
                       fence.request_id()};
}

absl::Status CheckShape(const v1::AttendRequest& request) {
  if (request.batch() < 1 || request.batch() > kMaxExtent) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch: expected 1..2^40, got ", request.batch()));
  }
  if (request.kv_heads() < 1 || request.query_heads() < 1 || request.query_heads() > kMaxHeads ||
      request.query_heads() % request.kv_heads() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("query_heads: expected a multiple of kv_heads, 1..", kMaxHeads, ", got ",
                     request.query_heads(), " and kv_heads ", request.kv_heads()));
  }
  if (request.head_dim() < 16 || request.head_dim() > 256 || request.head_dim() % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim: expected 16..256 in steps of 8, got ", request.head_dim()));
  }
  if (!std::isfinite(request.softmax_scale())) {
    return absl::InvalidArgumentError(
        absl::StrCat("softmax_scale: expected a finite number, got ", request.softmax_scale()));
  }
  return absl::OkStatus();
}

absl::Status CheckLseBase(const v1::AttendRequest& request) {
  switch (request.lse_base()) {
    case v1::LSE_BASE_UNSPECIFIED:
    case v1::LSE_BASE_NATURAL:
      return absl::OkStatus();
    case v1::LSE_BASE_TWO:
      return absl::UnimplementedError(
          "lse_base: LSE_BASE_TWO is not supported, only LSE_BASE_NATURAL; it is never converted "
          "silently");
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("lse_base: unknown value ", static_cast<int>(request.lse_base())));
  }
}

absl::StatusOr<bool> GradientWireIsBf16(const v1::AttendRequest& request) {
  switch (request.gradient_wire()) {
    case v1::GRADIENT_WIRE_UNSPECIFIED:
    case v1::GRADIENT_WIRE_FP32:
      return false;
    case v1::GRADIENT_WIRE_BF16:
      return true;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("gradient_wire: unknown value ", static_cast<int>(request.gradient_wire())));
  }
}

// A forward names q, k, v, o, lse; a backward also d_o, dq, dk, dv. Half of the latter is a
// mistake.
absl::StatusOr<bool> IsBackward(const v1::AttendRequest& request) {
  if (!request.has_q() || !request.has_k() || !request.has_v() || !request.has_o() ||
      !request.has_lse()) {
    return absl::InvalidArgumentError("q, k, v, o and lse are all needed, one is missing");
  }
  const int gradients = request.has_d_o() + request.has_dq() + request.has_dk() + request.has_dv();
  if (gradients != 0 && gradients != 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("d_o, dq, dk and dv come together (backward) or not at all (forward), got ",
                     gradients, " of 4"));
  }
  return gradients == 4;
}

absl::Status CheckRetention(const v1::AttendRequest& request, bool backward) {
  if (backward && request.retain()) {
    return absl::InvalidArgumentError("retain: a backward keeps no KV; set it on the forward");
  }
  if (request.forward_request_id().empty()) return absl::OkStatus();
  if (!backward) {
    return absl::InvalidArgumentError(
        "forward_request_id: only a backward starts from the KV of a forward");
  }
  return CheckId("forward_request_id", request.forward_request_id());
}

absl::Status ReadTensors(const v1::AttendRequest& request, bool backward,
                         worker::AttendCall* call) {
  const TensorShape query{request.batch(), request.query_heads(), request.head_dim(),
                          request.dtype(), /*may_be_f32=*/false};
  TensorShape key = query;
  key.heads = request.kv_heads();
  TensorShape lse = query;
  lse.head_dim = 0;
  lse.dtype = v1::DTYPE_F32;
  // Outputs may be wider than the inputs.
  TensorShape query_out = query;
  query_out.may_be_f32 = true;
  TensorShape key_out = key;
  key_out.may_be_f32 = true;

  ANNULUS_ASSIGN_OR_RETURN(call->q, TensorRefFromProto("q", request.q(), query));
  ANNULUS_ASSIGN_OR_RETURN(call->k, TensorRefFromProto("k", request.k(), key));
  ANNULUS_ASSIGN_OR_RETURN(call->v, TensorRefFromProto("v", request.v(), key));
  ANNULUS_ASSIGN_OR_RETURN(call->o, TensorRefFromProto("o", request.o(), query_out));
  ANNULUS_ASSIGN_OR_RETURN(call->lse, TensorRefFromProto("lse", request.lse(), lse));
  if (!backward) return absl::OkStatus();
  ANNULUS_ASSIGN_OR_RETURN(call->d_o, TensorRefFromProto("d_o", request.d_o(), query_out));
  ANNULUS_ASSIGN_OR_RETURN(call->dq, TensorRefFromProto("dq", request.dq(), query_out));
  ANNULUS_ASSIGN_OR_RETURN(call->dk, TensorRefFromProto("dk", request.dk(), key_out));
  ANNULUS_ASSIGN_OR_RETURN(call->dv, TensorRefFromProto("dv", request.dv(), key_out));
  return absl::OkStatus();
}

v1::TimelineOp::Kind KindToProto(metrics::OpKind kind) {
  switch (kind) {
    case metrics::OpKind::kCompute:
      return v1::TimelineOp::KIND_COMPUTE;
    case metrics::OpKind::kSend:
      return v1::TimelineOp::KIND_SEND;
    case metrics::OpKind::kReceive:
      return v1::TimelineOp::KIND_RECEIVE;
    case metrics::OpKind::kWait:
      return v1::TimelineOp::KIND_WAIT;
    case metrics::OpKind::kAccumulate:
      return v1::TimelineOp::KIND_ACCUMULATE;
    case metrics::OpKind::kPrepare:
      return v1::TimelineOp::KIND_PREPARE;
    case metrics::OpKind::kFinish:
      return v1::TimelineOp::KIND_FINISH;
    case metrics::OpKind::kCopy:
      return v1::TimelineOp::KIND_COPY;
  }
  return v1::TimelineOp::KIND_UNSPECIFIED;
}

bool HasPeer(metrics::OpKind kind) {
  return kind == metrics::OpKind::kSend || kind == metrics::OpKind::kReceive ||
         kind == metrics::OpKind::kWait;
}

void OpToProto(const metrics::Op& op, int64_t start_ns, v1::TimelineOp* out) {
  out->set_kind(KindToProto(op.kind));
  out->set_step(op.step);
  out->set_peer(op.peer);
  if (HasPeer(op.kind)) {
    out->set_level(op.level == metrics::Level::kOuter ? v1::LEVEL_OUTER : v1::LEVEL_INNER);
  }
  out->set_start_ns(op.start_ns - start_ns);
  out->set_end_ns(op.end_ns - start_ns);
  out->set_bytes(op.bytes);
  out->set_label(op.label);
}

void SummaryToProto(const metrics::Summary& summary, uint64_t peak_bytes, v1::TimingSummary* out) {
  out->set_wall_seconds(summary.wall_seconds);
  out->set_compute_seconds(summary.compute_seconds);
  out->set_comm_seconds(summary.comm_seconds);
  out->set_active_seconds(summary.active_seconds);
  out->set_exposed_comm_seconds(summary.exposed_seconds);
  out->set_exposed_inner_seconds(summary.exposed_inner_seconds);
  out->set_exposed_outer_seconds(summary.exposed_outer_seconds);
  out->set_peer_wait_seconds(summary.peer_wait_seconds);
  out->set_bytes_inner(summary.bytes_sent_inner);
  out->set_bytes_outer(summary.bytes_sent_outer);
  out->set_peak_bytes(peak_bytes);
}

}  // namespace

absl::StatusOr<worker::AttendCall> AttendCallFromProto(const v1::AttendRequest& request) {
  worker::AttendCall call;
  ANNULUS_ASSIGN_OR_RETURN(call.fence, FenceFromProto(request.fence()));
  ANNULUS_RETURN_IF_ERROR(CheckHex("session_id", request.session_id(), 32));
  ANNULUS_RETURN_IF_ERROR(CheckHex("plan_digest", request.plan_digest(), 64));
  ANNULUS_RETURN_IF_ERROR(CheckShape(request));
  ANNULUS_RETURN_IF_ERROR(CheckLseBase(request));
  ANNULUS_ASSIGN_OR_RETURN(call.gradient_wire_bf16, GradientWireIsBf16(request));
  ANNULUS_ASSIGN_OR_RETURN(call.dtype, DtypeFromProto("dtype", request.dtype()));
  ANNULUS_ASSIGN_OR_RETURN(const bool backward, IsBackward(request));
  ANNULUS_RETURN_IF_ERROR(CheckRetention(request, backward));
  ANNULUS_RETURN_IF_ERROR(ReadTensors(request, backward, &call));
  call.session_id = request.session_id();
  call.plan_digest = request.plan_digest();
  call.batch = request.batch();
  call.query_heads = request.query_heads();
  call.kv_heads = request.kv_heads();
  call.head_dim = request.head_dim();
  call.softmax_scale = request.softmax_scale() != 0
                           ? request.softmax_scale()
                           : 1.0f / std::sqrt(static_cast<float>(request.head_dim()));
  call.overlap = request.overlap();
  call.retain = request.retain();
  call.forward_request_id = request.forward_request_id();
  call.record_timeline = request.record_timeline();
  call.content_hash = AttendContentHash(request);
  return call;
}

absl::StatusOr<std::optional<double>> CallTimeout(const v1::AttendRequest& request) {
  const double seconds = request.timeout_seconds();
  if (seconds == 0) return std::nullopt;
  if (!(seconds > 0 && seconds <= kMaxTimeoutSeconds)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "timeout_seconds: expected 0 or a finite number of seconds, at most a year, got ",
        seconds));
  }
  return seconds;
}

uint64_t AttendContentHash(const v1::AttendRequest& request) {
  v1::AttendRequest content = request;
  content.clear_timeout_seconds();
  v1::Fence* fence = content.mutable_fence();
  fence->clear_term();
  fence->clear_epoch();
  fence->clear_incarnation();
  fence->clear_step();
  fence->clear_hop();
  content.clear_timeout_seconds();
  // No maps in the message, so its bytes are the same each time.
  return absl::HashOf(content.SerializeAsString());
}

v1::AttendResponse AttendResponseToProto(const worker::AttendAnswer& answer, const v1::Fence& fence,
                                         bool with_timeline) {
  v1::AttendResponse response;
  *response.mutable_fence() = fence;
  response.set_rank(answer.rank);
  response.set_replayed(answer.replayed);
  response.set_start_monotonic_ns(answer.timeline.start_ns);
  SummaryToProto(answer.summary, answer.peak_bytes, response.mutable_timing());
  for (const metrics::StepSummary& step : answer.steps) {
    v1::StepTiming* out = response.add_steps();
    out->set_step(step.step);
    out->set_compute_seconds(step.compute_seconds);
    out->set_comm_seconds(step.comm_seconds);
    out->set_exposed_seconds(step.exposed_seconds);
  }
  if (!with_timeline) return response;
  for (const metrics::Op& op : answer.timeline.ops) {
    OpToProto(op, answer.timeline.start_ns, response.add_timeline());
  }
  return response;
}

double RegionBytes(const worker::AttendCall& call) {
  double bytes = 0;
  for (const auto* ref :
       {&call.q, &call.k, &call.v, &call.o, &call.lse, &call.d_o, &call.dq, &call.dk, &call.dv}) {
    if (*ref && (*ref)->region) bytes += ElementBytes(**ref);
  }
  return bytes;
}

}  // namespace annulus::rpc
