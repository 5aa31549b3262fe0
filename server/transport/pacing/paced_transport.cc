// SPDX-License-Identifier: Apache-2.0
#include "server/transport/pacing/paced_transport.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "server/transport/host/clock.h"
#include "server/transport/quiet_thread.h"

namespace annulus::transport {
namespace {

constexpr int64_t kIdleNs = 1'000'000'000;
constexpr int64_t kPollNs =
    200'000;  // for a transport underneath that does not tell of completions

// Tags of the words about a transfer, in the sender's and in the other direction: scattered over
// all 64 bits (the finalizer of splitmix64), where they meet no tag in use but by a chance of 2^-64
// each, and then with an error.
uint64_t WordTag(uint64_t tag, bool of_sender) {
  uint64_t mixed = tag + (of_sender ? 0x9E3779B97F4A7C15ull : 0x3C6EF372FE94F82Aull);
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9ull;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBull;
  return mixed ^ (mixed >> 31);
}

bool Notifies(const annulusTransportV1* table) {
  return table->struct_size >=
             offsetof(annulusTransportV1, set_notify) + sizeof(table->set_notify) &&
         table->set_notify != nullptr;
}

}  // namespace

annulusTransportStatus PacedTransport::Open(const annulusTransportV1* inner,
                                            const PacingModel& model,
                                            const annulusTransportOptions& options,
                                            std::unique_ptr<PacedTransport>* transport,
                                            annulusTransportHandle* handle) {
  std::unique_ptr<PacedTransport> opened(
      new PacedTransport(inner, model, options.rank, options.size));
  if (!opened->wake_) return ANNULUS_TRANSPORT_RESOURCE;
  const annulusTransportStatus status = inner->open(&options, &opened->transport_, handle);
  if (status != ANNULUS_TRANSPORT_OK) return status;
  opened->notified_ = Notifies(inner);
  if (opened->notified_) {
    inner->set_notify(
        opened->transport_, [](void* self) { static_cast<PacedTransport*>(self)->Wake(); },
        opened.get());
  }
  opened->thread_ = QuietThread([self = opened.get()] { self->Run(); });
  *transport = std::move(opened);
  return ANNULUS_TRANSPORT_OK;
}

PacedTransport::PacedTransport(const annulusTransportV1* inner, const PacingModel& model,
                               int32_t rank, int32_t size)
    : inner_(inner),
      model_(model),
      rank_(rank),
      size_(size),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      out_{Wire(model.inner), Wire(model.outer)},
      in_{Wire(model.inner), Wire(model.outer)} {}

PacedTransport::~PacedTransport() {
  if (transport_ == nullptr) return;
  inner_->close(transport_);
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
}

Wire* PacedTransport::WireTo(int32_t peer, bool out) {
  if (peer < 0 || peer >= size_) return nullptr;
  Wire* const wire = &(out ? out_ : in_)[LevelBetween(model_, rank_, peer)];
  return wire->emulated() ? wire : nullptr;
}

annulusTransportStatus PacedTransport::Connect(const annulusTransportHandle* handles,
                                               int64_t deadline_ns) {
  return inner_->connect(transport_, handles, deadline_ns);
}

annulusTransportStatus PacedTransport::PostWord(PacedOperation* operation, bool out) {
  const uint64_t tag = WordTag(operation->tag, out == operation->is_send);
  annulusSegment segment{out ? &operation->said_ns : &operation->heard_ns, sizeof(int64_t)};
  return (out ? inner_->isend : inner_->irecv)(transport_, operation->peer, tag, &segment, 1,
                                               operation->deadline_ns,
                                               out ? &operation->word_out : &operation->word_in);
}

annulusTransportStatus PacedTransport::Post(bool is_send, int32_t peer, uint64_t tag,
                                            const annulusSegment* segments, size_t segment_count,
                                            int64_t deadline_ns, PacedOperationPtr* operation) {
  auto posted = std::make_shared<PacedOperation>();
  posted->is_send = is_send;
  posted->peer = peer;
  posted->tag = tag;
  posted->deadline_ns = deadline_ns;
  posted->wire = WireTo(peer, is_send);
  const annulusTransportStatus status = (is_send ? inner_->isend : inner_->irecv)(
      transport_, peer, tag, segments, segment_count, deadline_ns, &posted->data);
  if (status != ANNULUS_TRANSPORT_OK) return status;
  for (size_t i = 0; i < segment_count; ++i) posted->bytes += segments[i].bytes;
  if (posted->wire != nullptr && PostWord(posted.get(), false) != ANNULUS_TRANSPORT_OK) {
    inner_->abort(transport_, "no queue entry left for an emulated transfer");
  }
  *operation = posted;
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(posted));
  }
  Wake();
  return ANNULUS_TRANSPORT_OK;
}

void PacedTransport::Abort(const char* reason) {
  inner_->abort(transport_, reason);
  {
    std::lock_guard lock(mutex_);
    aborted_ = true;
  }
  Wake();
}

void PacedTransport::LastError(char* text, size_t text_bytes, int32_t* peer) {
  {
    std::lock_guard lock(mutex_);
    if (!error_text_.empty()) {
      if (peer != nullptr) *peer = error_peer_;
      if (text != nullptr && text_bytes > 0) text[error_text_.copy(text, text_bytes - 1)] = '\0';
      return;
    }
  }
  inner_->last_error(transport_, text, text_bytes, peer);
}

void PacedTransport::Stats(annulusTransportStats* stats) {
  if (Notifies(inner_) && inner_->stats != nullptr) inner_->stats(transport_, stats);
  if (stats->struct_size < sizeof(annulusTransportStats)) return;
  std::lock_guard lock(mutex_);  // without the words on start times
  stats->sent_bytes = stats_.sent_bytes;
  stats->received_bytes = stats_.received_bytes;
}

void PacedTransport::SetNotify(void (*notify)(void*), void* context) {
  std::lock_guard lock(mutex_);
  notify_ = notify;
  notify_context_ = context;
}

void PacedTransport::SetError(int32_t peer, std::string text) {
  std::lock_guard lock(mutex_);
  if (!error_text_.empty()) return;
  error_text_ = std::move(text);
  error_peer_ = peer;
}

void PacedTransport::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

void PacedTransport::Run() {
  while (true) {
    const int64_t sleep_ns = SleepNs(NowNs());
    const timespec sleep{sleep_ns / 1'000'000'000, sleep_ns % 1'000'000'000};
    pollfd event{wake_.get(), POLLIN, 0};
    if (::ppoll(&event, 1, &sleep, nullptr) > 0) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
    }
    bool closed = false;
    {
      std::lock_guard lock(mutex_);
      operations_.insert(operations_.end(), posted_.begin(), posted_.end());
      posted_.clear();
      closed = closed_;
      cut_short_ = aborted_ || closed_;
    }
    AdvanceAll();
    if (completed_some_) {
      completed_some_ = false;
      std::lock_guard lock(mutex_);
      if (notify_ != nullptr) notify_(notify_context_);
    }
    if (closed) return;
  }
}

int64_t PacedTransport::SleepNs(int64_t now_ns) const {
  int64_t until = now_ns + (notified_ || operations_.empty() ? kIdleNs : kPollNs);
  for (const PacedOperationPtr& operation : operations_) {
    if (operation->stage != PacedOperation::Stage::kTimed) continue;
    until = std::min({until, operation->finish_ns, operation->deadline_ns});
  }
  return std::max<int64_t>(until - now_ns, 0);
}

void PacedTransport::AdvanceAll() {
  for (auto at = operations_.begin(); at != operations_.end();) {
    while (Advance(at->get(), NowNs())) {
    }
    at = ReturnRequests(at->get()) ? operations_.erase(at) : std::next(at);
  }
}

bool PacedTransport::Advance(PacedOperation* operation, int64_t now_ns) {
  switch (operation->stage) {
    case PacedOperation::Stage::kMoving:
      return OnMoving(operation, now_ns);
    case PacedOperation::Stage::kAgreeing:
      return OnAgreeing(operation, now_ns);
    case PacedOperation::Stage::kTimed:
      return OnTimed(operation, now_ns);
    case PacedOperation::Stage::kOver:
      return false;
  }
  return false;
}

bool PacedTransport::OnMoving(PacedOperation* operation, int64_t now_ns) {
  if (!Take(&operation->data, &operation->moved)) return false;
  const annulusCompletion& moved = operation->moved;
  if (moved.status != ANNULUS_TRANSPORT_OK || operation->wire == nullptr) {
    Conclude(operation, moved.status, moved.start_ns, moved.end_ns);
    return true;
  }
  operation->stage = PacedOperation::Stage::kAgreeing;
  if (!operation->is_send) return true;
  operation->said_ns = operation->wire->Reserve(moved.start_ns, operation->bytes);
  const annulusTransportStatus status = PostWord(operation, true);
  if (status != ANNULUS_TRANSPORT_OK) Conclude(operation, status, moved.start_ns, now_ns);
  return true;
}

// The sender names the start by its wire out; the receiver answers with the start by both wires,
// which is binding.
bool PacedTransport::OnAgreeing(PacedOperation* operation, int64_t now_ns) {
  annulusCompletion end{};
  if (operation->word_in != nullptr) {
    if (!Take(&operation->word_in, &end)) return false;
    annulusTransportStatus status = end.status;
    if (status == ANNULUS_TRANSPORT_OK && !operation->is_send) {
      operation->said_ns = operation->wire->Reserve(operation->heard_ns, operation->bytes);
      status = PostWord(operation, true);
    }
    if (status != ANNULUS_TRANSPORT_OK)
      Conclude(operation, status, operation->moved.start_ns, now_ns);
    return true;
  }
  // Until our own word is there, closing would cut the peer off.
  if (!Take(&operation->word_out, &end)) return false;
  if (end.status != ANNULUS_TRANSPORT_OK) {
    Conclude(operation, end.status, operation->moved.start_ns, now_ns);
    return true;
  }
  operation->start_ns = operation->is_send ? operation->heard_ns : operation->said_ns;
  operation->finish_ns = operation->start_ns + operation->wire->TransferNs(operation->bytes);
  if (operation->is_send) {
    operation->wire->Postpone(operation->start_ns, operation->bytes);
  } else {
    operation->finish_ns += operation->wire->latency_ns();
  }
  operation->finish_ns = std::max(operation->finish_ns, operation->moved.end_ns);
  operation->stage = PacedOperation::Stage::kTimed;
  return true;
}

bool PacedTransport::OnTimed(PacedOperation* operation, int64_t now_ns) {
  if (cut_short_) {
    Conclude(operation, ANNULUS_TRANSPORT_ABORTED, operation->start_ns, now_ns);
    return true;
  }
  if (now_ns >= operation->finish_ns && operation->finish_ns <= operation->deadline_ns) {
    Conclude(operation, ANNULUS_TRANSPORT_OK, operation->start_ns, operation->finish_ns);
    return true;
  }
  if (now_ns < operation->deadline_ns) return false;
  SetError(operation->peer, "transfer with peer " + std::to_string(operation->peer) + ", tag " +
                                std::to_string(operation->tag) +
                                ": the emulated link needs longer than its deadline");
  Conclude(operation, ANNULUS_TRANSPORT_DEADLINE, operation->start_ns, now_ns);
  return true;
}

void PacedTransport::Conclude(PacedOperation* operation, annulusTransportStatus status,
                              int64_t start_ns, int64_t end_ns) {
  operation->stage = PacedOperation::Stage::kOver;
  operation->completion = {status, operation->peer, start_ns, std::max(start_ns, end_ns),
                           operation->moved.bytes};
  completed_some_ = true;
  if (status == ANNULUS_TRANSPORT_OK) {
    std::lock_guard lock(mutex_);
    (operation->is_send ? stats_.sent_bytes : stats_.received_bytes) += operation->bytes;
  }
  operation->done.store(1, std::memory_order_release);
  operation->done.notify_all();
}

bool PacedTransport::Take(annulusRequest** request, annulusCompletion* end) {
  int32_t done = 0;
  inner_->test(*request, &done, end);
  if (done == 0) return false;
  inner_->release(*request);
  *request = nullptr;
  return true;
}

bool PacedTransport::ReturnRequests(PacedOperation* operation) {
  if (operation->stage != PacedOperation::Stage::kOver) return false;
  annulusCompletion ignored{};
  bool all = true;
  for (annulusRequest** request : {&operation->data, &operation->word_in, &operation->word_out}) {
    if (*request != nullptr && !Take(request, &ignored)) all = false;
  }
  return all;
}

}  // namespace annulus::transport
