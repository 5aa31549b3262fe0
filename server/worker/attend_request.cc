// SPDX-License-Identifier: Apache-2.0
#include "server/worker/attend_request.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"
#include "server/worker/clock.h"
#include "server/worker/names.h"

namespace annulus::worker {
namespace {

// How far behind the call's own deadline its answer may come: the promise is one second.
constexpr double kVerdictPastDeadlineSeconds = 0.5;

absl::Status ResidentMissing(const std::string& why) {
  return WithFaultInfo(absl::FailedPreconditionError(why), {"RESIDENT_MISSING", {}});
}

metrics::TransportNames NamesOf(const Group& group) {
  metrics::TransportNames names;
  if (group.transport() == nullptr) return names;
  for (int peer = 0; peer < group.assignment().size; ++peer) {
    names.emplace_back(group.transport()->NameTo(peer));
  }
  return names;
}

}  // namespace

absl::Status AttendRequest::CheckCall() const {
  if (call_.batch < 1 || call_.query_heads < 1 || call_.kv_heads < 1 || call_.head_dim < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "batch ", call_.batch, ", ", call_.query_heads, " query heads, ", call_.kv_heads,
        " KV heads, head size ", call_.head_dim, ": all must be positive"));
  }
  if (call_.query_heads % call_.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        call_.query_heads, " query heads are no multiple of ", call_.kv_heads, " KV heads"));
  }
  if (!std::isfinite(call_.softmax_scale)) {
    return absl::InvalidArgumentError("softmax_scale is not finite");
  }
  return services_.device->Supports(call_.dtype, call_.head_dim, call_.query_heads, call_.kv_heads);
}

absl::Status AttendRequest::Prepare() {
  peak_ = std::make_unique<Ledger::PeakWatch>(&services_.pool->ledger());
  ANNULUS_RETURN_IF_ERROR(CheckCall());
  const GroupAssignment& group = group_->assignment();
  ANNULUS_ASSIGN_OR_RETURN(inputs_.program, services_.plans->Get(call_.plan_digest, group.rank));
  const ring::Plan& plan = *inputs_.program->plan;
  if (plan.context_parallel_size != group.size) {
    return absl::InvalidArgumentError(absl::StrCat("the plan is for ", plan.context_parallel_size,
                                                   " ranks, group ", group.group, " has ",
                                                   group.size));
  }
  if (plan.transfers.size() >= (size_t{1} << 24)) {
    return absl::InvalidArgumentError("the plan has more transfers than tags");
  }
  inputs_.batch = call_.batch;
  inputs_.query_heads = call_.query_heads;
  inputs_.kv_heads = call_.kv_heads;
  inputs_.head_dim = call_.head_dim;
  inputs_.dtype = call_.dtype;
  inputs_.softmax_scale = call_.softmax_scale != 0
                              ? call_.softmax_scale
                              : 1.0f / std::sqrt(static_cast<float>(call_.head_dim));
  inputs_.gradient_wire_bf16 = call_.gradient_wire_bf16;
  inputs_.retain = call_.retain;
  const transport::Transport* const transport = group_->transport();
  inputs_.wire = WireOf(*services_.device, transport);
  inputs_.wire_registered = transport != nullptr && transport->registers_memory();
  ANNULUS_RETURN_IF_ERROR(FindOperands());
  ANNULUS_RETURN_IF_ERROR(FindResident());
  ANNULUS_ASSIGN_OR_RETURN(placement_, Placement::Create(&inputs_, services_.pool.get()));
  ANNULUS_ASSIGN_OR_RETURN(space_, Workspace::Create(inputs_, services_.pool.get()));
  ANNULUS_ASSIGN_OR_RETURN(bound_, Bind(inputs_, placement_, space_));
  ANNULUS_ASSIGN_OR_RETURN(queue_, services_.device->BorrowQueue());
  return group.transfers_off ? ZeroSlots() : absl::OkStatus();
}

// Nothing will arrive in the slots: they must not hold what is no number.
absl::Status AttendRequest::ZeroSlots() {
  const Device& device = *services_.device;
  for (const Buffer* buffer : {&space_.arena, &space_.resident}) {
    if (buffer->bytes() == 0) continue;
    ANNULUS_RETURN_IF_ERROR(device.ToStatus(
        device.table().fill_zero(queue_.stream(), buffer->data(), buffer->bytes()), "zeroing"));
  }
  return queue_.Drain(control_->deadline_ns());
}

absl::Status AttendRequest::FindOperands() {
  using Use = Session::Use;
  const bool backward = inputs_.program->backward;
  const Use out = backward ? Use::kInput : Use::kOutput;
  operands_.push_back({"q", &call_.q, Use::kInput, true, &inputs_.q, {}});
  operands_.push_back({"k", &call_.k, Use::kInput, false, &inputs_.k, {}});
  operands_.push_back({"v", &call_.v, Use::kInput, false, &inputs_.v, {}});
  operands_.push_back({"o", &call_.o, out, true, &inputs_.o, {}});
  operands_.push_back({"lse", &call_.lse, out, true, &inputs_.lse, {}});
  if (backward) {
    operands_.push_back({"do", &call_.d_o, Use::kInput, true, &inputs_.d_o, {}});
    operands_.push_back({"dq", &call_.dq, Use::kOutput, true, &inputs_.dq, {}});
    operands_.push_back({"dk", &call_.dk, Use::kOutput, false, &inputs_.dk, {}});
    operands_.push_back({"dv", &call_.dv, Use::kOutput, false, &inputs_.dv, {}});
  } else if (call_.d_o || call_.dq || call_.dk || call_.dv) {
    return absl::InvalidArgumentError("a forward takes none of do, dq, dk and dv");
  }
  for (Operand& operand : operands_) ANNULUS_RETURN_IF_ERROR(FindOperand(&operand));
  return absl::OkStatus();
}

absl::Status AttendRequest::FindOperand(Operand* operand) {
  if (!operand->ref->has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", operand->name, " is missing"));
  }
  const bool statistic = operand->placed == &inputs_.lse;
  TensorShape shape;
  shape.name = operand->name;
  shape.batch = call_.batch;
  shape.heads = operand->of_queries ? call_.query_heads : call_.kv_heads;
  shape.head_dim = statistic ? 0 : call_.head_dim;
  ANNULUS_ASSIGN_OR_RETURN(operand->resolved,
                           session_->Resolve(**operand->ref, shape, operand->use));
  const annulusDtype got = operand->resolved.ref.dtype;
  const bool may_be_float = operand->use == Session::Use::kOutput || operand->placed == &inputs_.o;
  const bool fits =
      statistic ? got == ANNULUS_F32 : got == call_.dtype || (may_be_float && got == ANNULUS_F32);
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", operand->name, " is of dtype ", static_cast<int>(got), ", expected ",
        statistic ? "f32" : "the call's dtype", may_be_float && !statistic ? " or f32" : ""));
  }
  *operand->placed = PlaceResolved(operand->resolved);
  operand->placed->leased = operand->resolved.held == nullptr;
  if (services_.device->host_memory()) operand->placed->memory = Memory::kDevice;
  return absl::OkStatus();
}

absl::Status AttendRequest::FindResident() {
  const RankProgram& program = *inputs_.program;
  if (!program.backward || program.resident_slot < 0) return absl::OkStatus();
  const GroupAssignment& group = group_->assignment();
  if (call_.forward_request_id.empty()) {
    return ResidentMissing("the plan starts from KV kept by a forward; none is named");
  }
  const auto kept = session_->FindRetained(call_.forward_request_id);
  if (kept == nullptr) {
    return ResidentMissing(absl::StrCat("no KV is kept from forward ", call_.forward_request_id));
  }
  if (kept->group != group.group || kept->epoch != group.epoch || kept->batch != call_.batch ||
      kept->kv_heads != call_.kv_heads || kept->head_dim != call_.head_dim ||
      kept->dtype != call_.dtype || kept->tokens != *program.resident_tokens) {
    return ResidentMissing(absl::StrCat("the KV kept from forward ", call_.forward_request_id,
                                        " is of another group, epoch, shape or plan: group ",
                                        kept->group, ", epoch ", kept->epoch, ", [", kept->batch,
                                        ", ", ring::TokenCount(kept->tokens), ", ", kept->kv_heads,
                                        ", ", kept->head_dim, "]"));
  }
  inputs_.resident = kept;
  return absl::OkStatus();
}

absl::StatusOr<AttendAnswer> AttendRequest::Run() {
  std::unique_ptr<StepObserver> observer =
      services_.observer == nullptr ? nullptr
                                    : services_.observer->OnStart(call_, NamesOf(*group_));
  ExecutorOptions options;
  options.overlap = call_.overlap;
  options.hop_timeout_seconds = services_.options->hop_timeout_seconds;
  options.tag_base = TagBase(call_.fence.request_id);
  Executor executor(bound_, group_->transport(), services_.device.get(), &queue_, options,
                    control_.get(), &timeline_, observer.get());
  timeline_.start_ns = NowNs();
  const absl::Status ran = executor.Run();
  timeline_.end_ns = NowNs();
  began_ = executor.began();
  if (!ran.ok()) return Fail(ran, &executor);
  if (call_.retain) ANNULUS_RETURN_IF_ERROR(KeepResident());
  if (inputs_.program->backward) session_->DropRetained(call_.forward_request_id);
  AttendAnswer answer;
  for (const Operand& operand : operands_) {
    const bool wrote = operand.use == Session::Use::kOutput;
    if (wrote && operand.resolved.held != nullptr) operand.resolved.held->CommitAll();
  }
  answer.rank = group_->assignment().rank;
  answer.summary = metrics::Summarise(timeline_);
  answer.steps = metrics::SummariseSteps(timeline_, steps());
  answer.timeline.start_ns = timeline_.start_ns;
  answer.timeline.end_ns = timeline_.end_ns;
  if (call_.record_timeline) answer.timeline.ops = timeline_.ops;
  answer.peak_bytes = peak_->peak_bytes() + LeasedBytes();
  return answer;
}

absl::Status AttendRequest::KeepResident() {
  const RankProgram& program = *inputs_.program;
  auto kept = std::make_shared<RetainedKv>();
  kept->group = group_->assignment().group;
  kept->epoch = group_->assignment().epoch;
  kept->batch = call_.batch;
  kept->kv_heads = call_.kv_heads;
  kept->head_dim = call_.head_dim;
  kept->dtype = call_.dtype;
  if (program.resident_tokens != nullptr) kept->tokens = *program.resident_tokens;
  kept->buffer = std::move(space_.resident);
  return session_->Retain(call_.fence.request_id, std::move(kept));
}

// The rank's rows of the tensors that lie in the client's regions.
uint64_t AttendRequest::LeasedBytes() const {
  const ring::RankShard& shard = *inputs_.program->shard;
  uint64_t bytes = 0;
  for (const Operand& operand : operands_) {
    if (operand.resolved.held != nullptr) continue;
    const int64_t tokens = ring::TokenCount(operand.of_queries ? shard.q : shard.kv);
    const PlacedTensor& tensor = *operand.placed;
    bytes += DenseBytes(tensor.batch, tokens, tensor.heads, tensor.head_dim, tensor.dtype);
  }
  return bytes;
}

absl::Status AttendRequest::Fail(const absl::Status& cause, Executor* executor) {
  FailurePoint at;
  at.rank = group_->assignment().rank;
  at.step = control_->step();
  at.peer = executor->failed_peer();
  if (group_->transport() != nullptr && absl::IsUnavailable(cause)) {
    const int lost = group_->transport()->last_error().peer;
    if (lost >= 0) at.peer = lost;
  }
  at.request_id = call_.fence.request_id;
  if (group_->transport() == nullptr || !began_) return Blame(cause, at);
  // A peer may be writing into a slot or waiting for one of ours: the epoch ends before any of
  // this request's memory is used again.
  Report(cause, at);
  group_->Fail(absl::StrCat("rank ", at.rank, ": ", cause.message()));
  executor->Abandon();
  return Blame(cause, at);
}

// Whom the coordinator should look at first; it follows from there who waits for whom.
int AttendRequest::SuspectOf(const absl::Status& cause, const FailurePoint& at) const {
  switch (control_->stop_reason()) {
    case StopReason::kCancelled:
    case StopReason::kDeadline:
      return at.rank;  // the caller's doing: no worker is to be shunned for it
    case StopReason::kHopTimeout:
      return at.peer;
    case StopReason::kEpochOver:
      return -1;
    case StopReason::kNone:
      break;
  }
  if (absl::IsUnavailable(cause) || absl::IsDataLoss(cause)) return at.peer;
  // A peer that aborted has its own report to make; this rank only says that it is affected.
  return absl::IsAborted(cause) ? -1 : at.rank;
}

void AttendRequest::Report(const absl::Status& cause, const FailurePoint& at) const {
  if (!services_.fault_sink || group_->verdict()) return;
  FaultObservation seen;
  seen.group = group_->assignment().group;
  seen.epoch = group_->assignment().epoch;
  seen.step = at.step;
  seen.request_id = at.request_id;
  seen.suspect_rank = SuspectOf(cause, at);
  seen.message = control_->stop_reason() == StopReason::kNone ? std::string(cause.message())
                                                              : Describe(control_->stop_reason());
  services_.fault_sink(seen);
}

absl::Status AttendRequest::Blame(const absl::Status& cause, const FailurePoint& at) const {
  const StopReason stop = control_->stop_reason();
  const GroupAssignment& group = group_->assignment();
  const std::string detail(cause.message());
  if (stop == StopReason::kCancelled) {
    return LocalStatus(absl::StatusCode::kCancelled, "CANCELLED", -1, group, at, Describe(stop));
  }
  if (stop == StopReason::kDeadline || absl::IsDeadlineExceeded(cause)) {
    return LocalStatus(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED", at.peer, group, at,
                       "its deadline passed");
  }
  const bool epoch_ended = stop != StopReason::kNone || absl::IsAborted(cause) ||
                           absl::IsUnavailable(cause) || absl::IsDataLoss(cause);
  if (!epoch_ended) return LocalStatus(cause.code(), "REQUEST_FAILED", at.rank, group, at, detail);
  const int64_t give_up_ns =
      std::min(NowNs() + SecondsToNs(services_.options->verdict_timeout_seconds),
               control_->deadline_ns() + SecondsToNs(kVerdictPastDeadlineSeconds));
  if (const auto verdict = group_->WaitForVerdict(give_up_ns)) return VerdictStatus(*verdict, at);
  const bool corrupted = absl::IsDataLoss(cause);
  const char* reason = stop == StopReason::kHopTimeout ? "HOP_TIMEOUT"
                       : corrupted                     ? "DATA_CORRUPTED"
                                                       : "PEER_UNREACHABLE";
  int suspect = at.peer;
  if (absl::IsAborted(cause) && group_->transport() != nullptr) {
    // News of an abort may come over any hop; the transport knows who called it.
    const int aborter = group_->transport()->last_error().peer;
    if (aborter >= 0) suspect = aborter;
  }
  return LocalStatus(absl::StatusCode::kUnavailable, reason, suspect, group, at, detail);
}

}  // namespace annulus::worker
