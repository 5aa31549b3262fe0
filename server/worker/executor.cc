// SPDX-License-Identifier: Apache-2.0
#include "server/worker/executor.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "server/base/status_macros.h"
#include "server/worker/clock.h"

namespace annulus::worker {
namespace {

// Decorators of a transport keep the two highest bits of a tag for themselves.
constexpr uint64_t kTagMask = (uint64_t{1} << 62) - 1;

metrics::Level LevelOf(const TransferOp& op) {
  return op.transfer->level == ring::Level::kInner ? metrics::Level::kInner
                                                   : metrics::Level::kOuter;
}

const char* LabelOf(const TransferOp& op) {
  return op.transfer->payload == ring::Payload::kKv ? "kv" : "dkv";
}

}  // namespace

uint64_t TagBase(const std::string& request_id) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, then the finisher of MurmurHash3
  for (const char c : request_id) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
  hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
  hash ^= hash >> 33;
  return (hash << 24) & kTagMask;
}

Executor::Executor(const BoundProgram& bound, transport::Transport* transport, Device* device,
                   Device::Queue* queue, const ExecutorOptions& options, RunControl* control,
                   metrics::Timeline* timeline, StepObserver* observer)
    : bound_(bound),
      program_(*bound.program),
      transport_(transport),
      device_(device),
      queue_(queue),
      compute_(device->table()),
      options_(options),
      control_(control),
      timeline_(timeline),
      observer_(observer),
      posted_(bound.transfers.size()) {
  timeline_->ops.reserve(3 * bound.transfers.size() + bound.computes.size() + 4);
}

absl::Status Executor::Run() {
  ANNULUS_RETURN_IF_ERROR(Begin());
  const int steps = program_.plan->steps;
  for (int step = 0; step < steps; ++step) {
    control_->BeginStep(step);
    ANNULUS_RETURN_IF_ERROR(ApplyDue(step));
    ANNULUS_RETURN_IF_ERROR(PostAll(step));
    if (step == 0) ANNULUS_RETURN_IF_ERROR(Prepare());
    ANNULUS_RETURN_IF_ERROR(ComputeAll(step));
    TellObserver();
  }
  ANNULUS_RETURN_IF_ERROR(ApplyDue(steps));
  return Finish();
}

absl::Status Executor::Begin() {
  ANNULUS_RETURN_IF_ERROR(CopyAll(bound_.first_uploads, metrics::OpKind::kCopy, 0, "upload"));
  ANNULUS_RETURN_IF_ERROR(CopyAll(bound_.packs, metrics::OpKind::kPrepare, 0, "pack"));
  return CopyAll(bound_.first_to_wire, metrics::OpKind::kCopy, 0, "to wire");
}

absl::Status Executor::ApplyDue(int step) {
  const std::vector<int>& due = program_.steps[static_cast<size_t>(step)].due;
  for (const int id : due) {
    ANNULUS_RETURN_IF_ERROR(Complete(id, step));
    ANNULUS_RETURN_IF_ERROR(CopyAll(bound_.transfers[static_cast<size_t>(id)].from_wire,
                                    metrics::OpKind::kCopy, step, "from wire"));
  }
  for (const int id : due) ANNULUS_RETURN_IF_ERROR(Arrive(id, step));
  return absl::OkStatus();
}

absl::Status Executor::PostAll(int step) {
  ANNULUS_RETURN_IF_ERROR(CheckStop());
  const std::vector<int>& posts = program_.steps[static_cast<size_t>(step)].posts;
  if (posts.empty()) return absl::OkStatus();
  ANNULUS_RETURN_IF_ERROR(MakeReady(posts, step));
  transport_->BeginGroup();
  absl::Status posted;
  for (size_t i = 0; i < posts.size() && posted.ok(); ++i) posted = PostOne(posts[i]);
  posted.Update(transport_->EndGroup());
  ANNULUS_RETURN_IF_ERROR(posted);
  if (options_.overlap) return absl::OkStatus();
  for (const int id : posts) ANNULUS_RETURN_IF_ERROR(Complete(id, step));
  return absl::OkStatus();
}

// Nothing is waited for once the first transfer of a step is posted.
absl::Status Executor::MakeReady(const std::vector<int>& posts, int step) {
  for (const int id : posts) {
    const BoundTransfer& bound = bound_.transfers[static_cast<size_t>(id)];
    if (!bound.before_send.empty()) {
      const int64_t start = NowNs();
      for (const Conversion& c : bound.before_send) {
        ANNULUS_RETURN_IF_ERROR(Did(compute_.finish(queue_->stream(), &c.from, &c.to), "rounding"));
      }
      ANNULUS_RETURN_IF_ERROR(Record(metrics::OpKind::kPrepare, step, start, "round"));
    }
    ANNULUS_RETURN_IF_ERROR(CopyAll(bound.to_wire, metrics::OpKind::kCopy, step, "to wire"));
  }
  return absl::OkStatus();
}

absl::Status Executor::PostOne(int id) {
  const TransferOp& op = program_.transfers[static_cast<size_t>(id)];
  const BoundTransfer& bound = bound_.transfers[static_cast<size_t>(id)];
  if (bound.segments.empty()) return absl::OkStatus();
  Posted& posted = posted_[static_cast<size_t>(id)];
  const uint64_t tag = options_.tag_base + static_cast<uint64_t>(op.index);
  const absl::Span<const annulusSegment> segments(bound.segments);
  posted.post_ns = NowNs();
  auto request = op.send ? transport_->ISend(op.peer, tag, segments, control_->deadline_ns())
                         : transport_->IRecv(op.peer, tag, segments, control_->deadline_ns());
  if (!request.ok()) {
    failed_peer_ = op.peer;
    return request.status();
  }
  began_ = true;
  posted.request = *std::move(request);
  posted.done = false;
  return absl::OkStatus();
}

absl::Status Executor::Complete(int id, int step) {
  Posted& posted = posted_[static_cast<size_t>(id)];
  if (posted.done) return absl::OkStatus();
  const TransferOp& op = program_.transfers[static_cast<size_t>(id)];
  const int64_t start = posted.request.Done() ? 0 : NowNs();
  if (start != 0) {
    const bool bounded = control_->deadline_ns() < kNever;
    control_->BeginWait(op.peer,
                        bounded ? kNever : start + SecondsToNs(options_.hop_timeout_seconds));
  }
  const transport::Completion done =
      transport_->Wait(absl::MakeConstSpan(&posted.request, 1)).front();
  if (start != 0) {
    control_->EndWait();
    timeline_->ops.push_back(
        {metrics::OpKind::kWait, step, LevelOf(op), op.peer, start, NowNs(), 0, LabelOf(op)});
  }
  posted.done = true;
  failed_peer_ = op.peer;
  ANNULUS_RETURN_IF_ERROR(done.status);
  failed_peer_ = -1;
  posted.request = {};
  timeline_->ops.push_back({op.send ? metrics::OpKind::kSend : metrics::OpKind::kReceive,
                            op.transfer->post_step, LevelOf(op), op.peer, done.start_ns,
                            done.end_ns, done.bytes, LabelOf(op)});
  control_->FinishHop(op.index);
  return absl::OkStatus();
}

absl::Status Executor::Arrive(int id, int step) {
  const BoundTransfer& bound = bound_.transfers[static_cast<size_t>(id)];
  if (bound.on_arrival.empty()) return absl::OkStatus();
  const int64_t start = NowNs();
  ANNULUS_RETURN_IF_ERROR(Zero(bound.zero_on_arrival));
  for (const Addition& add : bound.on_arrival) {
    ANNULUS_RETURN_IF_ERROR(Did(
        compute_.accumulate(queue_->stream(), add.to, add.from, bound_.gradient_wire, add.count),
        "adding gradients"));
  }
  return Record(metrics::OpKind::kAccumulate, step, start);
}

absl::Status Executor::Prepare() {
  ANNULUS_RETURN_IF_ERROR(CopyAll(bound_.uploads, metrics::OpKind::kCopy, 0, "upload"));
  const int64_t start = NowNs();
  began_ = true;
  for (const auto& [o, lse] : bound_.reset) {
    ANNULUS_RETURN_IF_ERROR(Did(compute_.reset(queue_->stream(), &o, &lse), "reset"));
  }
  for (const MemoryRange& range : bound_.zero) ANNULUS_RETURN_IF_ERROR(Zero(range));
  for (const BoundProgram::Delta& delta : bound_.delta) {
    ANNULUS_RETURN_IF_ERROR(
        Did(compute_.backward_prepare(queue_->stream(), &delta.d_o, &delta.o, &delta.delta),
            "preparing the backward"));
  }
  return Record(metrics::OpKind::kPrepare, 0, start);
}

absl::Status Executor::ComputeAll(int step) {
  for (const int id : program_.steps[static_cast<size_t>(step)].computes) {
    ANNULUS_RETURN_IF_ERROR(CheckStop());
    const BoundCompute& bound = bound_.computes[static_cast<size_t>(id)];
    const int64_t start = NowNs();
    ANNULUS_RETURN_IF_ERROR(Zero(bound.zero_first));
    for (const annulusAttendArgs& args : bound.attend) {
      ANNULUS_RETURN_IF_ERROR(Did(compute_.attend(queue_->stream(), &args), "attention"));
    }
    for (const annulusAttendBackwardArgs& args : bound.backward) {
      ANNULUS_RETURN_IF_ERROR(
          Did(compute_.attend_backward(queue_->stream(), &args), "attention backward"));
    }
    ANNULUS_RETURN_IF_ERROR(Record(metrics::OpKind::kCompute, step, start,
                                   program_.computes[static_cast<size_t>(id)].label));
  }
  return absl::OkStatus();
}

absl::Status Executor::Finish() {
  const int last = program_.plan->steps - 1;
  if (!bound_.finish.empty()) {
    const int64_t start = NowNs();
    ANNULUS_RETURN_IF_ERROR(Zero(bound_.zero_home));
    for (const Conversion& c : bound_.finish) {
      ANNULUS_RETURN_IF_ERROR(Did(compute_.finish(queue_->stream(), &c.from, &c.to), "finishing"));
    }
    ANNULUS_RETURN_IF_ERROR(Record(metrics::OpKind::kFinish, last, start));
  }
  return CopyAll(bound_.downloads, metrics::OpKind::kCopy, last, "download");
}

absl::Status Executor::CheckStop() {
  const StopReason reason = control_->Poll(NowNs());
  switch (reason) {
    case StopReason::kNone:
      return absl::OkStatus();
    case StopReason::kCancelled:
      return absl::CancelledError(Describe(reason));
    case StopReason::kDeadline:
      return absl::DeadlineExceededError(Describe(reason));
    case StopReason::kHopTimeout:
    case StopReason::kEpochOver:
      break;
  }
  return absl::AbortedError(Describe(reason));
}

absl::Status Executor::Zero(const MemoryRange& range) {
  if (range.bytes == 0) return absl::OkStatus();
  return Did(compute_.fill_zero(queue_->stream(), range.data, range.bytes), "zeroing");
}

absl::Status Executor::CopyAll(const std::vector<annulusCopyArgs>& copies, metrics::OpKind kind,
                               int step, const char* label) {
  if (copies.empty()) return absl::OkStatus();
  const int64_t start = NowNs();
  for (const annulusCopyArgs& args : copies) {
    ANNULUS_RETURN_IF_ERROR(device_->Copy(*queue_, args));
  }
  return Record(kind, step, start, label);
}

absl::Status Executor::Record(metrics::OpKind kind, int step, int64_t start_ns, const char* label) {
  ANNULUS_RETURN_IF_ERROR(queue_->Drain(control_->deadline_ns()));
  timeline_->ops.push_back({kind, step, metrics::Level::kInner, -1, start_ns, NowNs(), 0, label});
  control_->Advance();
  return absl::OkStatus();
}

void Executor::TellObserver() {
  if (observer_ == nullptr) return;
  int64_t settled_ns = NowNs();
  for (const Posted& posted : posted_) {
    if (!posted.done) settled_ns = std::min(settled_ns, posted.post_ns);
  }
  observer_->OnStep(timeline_->ops, settled_ns);
}

void Executor::Abandon() {
  for (Posted& posted : posted_) {
    if (!posted.done) transport_->Wait(absl::MakeConstSpan(&posted.request, 1));
    posted.done = true;
    posted.request = {};
  }
}

}  // namespace annulus::worker
