// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/coordinator_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/coordinator_convert.h"
#include "server/rpc/status_codec.h"

namespace annulus::rpc {

CoordinatorStream::CoordinatorStream(coordinator::SessionId id, CoordinatorLoop* loop,
                                     std::function<void(coordinator::SessionId)> on_done)
    : id_(id), loop_(loop), on_done_(std::move(on_done)), opened_ms_(loop->Now()) {}

void CoordinatorStream::Open() {
  self_ = shared_from_this();
  ReadNext();
}

bool CoordinatorStream::said_hello() const {
  const std::lock_guard lock(mutex_);
  return hello_;
}

void CoordinatorStream::Send(coordinator::Action action) {
  const std::lock_guard lock(mutex_);
  if (closing_) return;
  queue_.push_back(std::move(action));
  if (queue_.size() <= kQueueMax) return Pump();
  closing_ = true;
  status_ = absl::ResourceExhaustedError(
      absl::StrCat("more than ", kQueueMax, " commands wait for this worker to read them"));
  queue_.clear();
  FinishWhenQuiet();
}

void CoordinatorStream::Close(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (closing_) return;
  closing_ = true;
  status_ = status;
  queue_.clear();
  FinishWhenQuiet();
}

void CoordinatorStream::Pump() {
  if (writing_ || closing_ || queue_.empty()) return;
  const bool is_command = CommandToProto(queue_.front(), &outgoing_);
  queue_.pop_front();
  if (!is_command) return;
  writing_ = true;
  StartWrite(&outgoing_);
}

void CoordinatorStream::FinishWhenQuiet() {
  if (!closing_ || writing_ || finished_) return;
  finished_ = true;
  Finish(ToGrpcStatus(status_));
}

void CoordinatorStream::ReadNext() {
  const std::lock_guard lock(mutex_);
  if (!finished_) StartRead(&incoming_);
}

void CoordinatorStream::Leave(const absl::Status& status) {
  loop_->Post(coordinator::WorkerGone{id_}, nullptr);
  Close(status);
}

void CoordinatorStream::OnReadDone(bool ok) {
  if (!ok) return Leave(absl::OkStatus());
  Take(incoming_);
}

void CoordinatorStream::Take(const v1::WorkerMessage& message) {
  // The next message is read when this one is through: a worker that floods waits for itself.
  auto read_next = [self = shared_from_this()] { self->ReadNext(); };
  if (said_hello()) {
    auto event = EventFromProto(id_, message);
    if (!event.ok()) return Leave(event.status());
    return loop_->Post(*std::move(event), std::move(read_next));
  }
  if (!message.has_hello()) {
    return Leave(
        absl::InvalidArgumentError("worker session: expected hello first, got another message"));
  }
  auto identity = IdentityFromProto(message.hello());
  if (!identity.ok()) return Leave(identity.status());
  {
    const std::lock_guard lock(mutex_);
    hello_ = true;
  }
  loop_->Post(coordinator::WorkerHello{id_, *std::move(identity)}, std::move(read_next));
}

void CoordinatorStream::OnWriteDone(bool ok) {
  const std::lock_guard lock(mutex_);
  writing_ = false;
  if (!ok && !closing_) {
    closing_ = true;
    status_ = absl::CancelledError("the worker is gone");
  }
  FinishWhenQuiet();
  Pump();
}

void CoordinatorStream::OnCancel() { Leave(absl::CancelledError("the worker's stream broke")); }

void CoordinatorStream::OnDone() {
  on_done_(id_);
  // The last share may be this one: nothing of the stream is touched after.
  const std::shared_ptr<CoordinatorStream> last = std::move(self_);
}

}  // namespace annulus::rpc
