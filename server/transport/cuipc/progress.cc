// SPDX-License-Identifier: Apache-2.0
// The progress thread.
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "server/transport/cuipc/cuipc_transport.h"

namespace annulus::transport::cuipc {
namespace {

constexpr int64_t kIdleNs = 1'000'000'000;
constexpr int64_t kPollNs = 20'000;           // while something is under way that nobody tells of
constexpr int64_t kQuietNs = 1'000'000'000;   // for copies of a failed operation to end
constexpr int64_t kFarewellNs = 500'000'000;  // for peers to unmap our memory

}  // namespace

void CuipcTransport::Run() {
  ::pthread_setname_np(::pthread_self(), "annulus-cuipc");
  while (true) {
    WaitForWork();
    const bool closing = TakeInbox();
    HearPeers();
    ForgetAll();
    AdvanceAll();
    if (completed_some_) {
      completed_some_ = false;
      std::lock_guard lock(mutex_);
      if (notify_ != nullptr) notify_(notify_context_);
    }
    const bool over = std::all_of(operations_.begin(), operations_.end(), [](const auto& each) {
      return each->stage == Operation::Stage::kOver;
    });
    if (closing && over) return EndSides();
  }
}

void CuipcTransport::WaitForWork() {
  const int64_t sleep_ns = SleepNs();
  const timespec sleep{sleep_ns / 1'000'000'000, sleep_ns % 1'000'000'000};
  std::vector<pollfd> events = {{wake_.get(), POLLIN, 0}};
  for (const auto& each : peers_) {
    if (each != nullptr && !each->ended()) events.push_back({each->side().fd(), POLLIN, 0});
  }
  if (::ppoll(events.data(), events.size(), &sleep, nullptr) <= 0 || events[0].revents == 0) return;
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
}

int64_t CuipcTransport::SleepNs() const {
  const bool busy = std::any_of(operations_.begin(), operations_.end(), [](const auto& each) {
    return each->stage == Operation::Stage::kCopying || each->stage == Operation::Stage::kSharing ||
           each->stage == Operation::Stage::kQuieting;
  });
  return busy ? kPollNs : kIdleNs;
}

bool CuipcTransport::TakeInbox() {
  std::lock_guard lock(mutex_);
  operations_.insert(operations_.end(), posted_.begin(), posted_.end());
  posted_.clear();
  cut_short_ = aborted_ || closing_;
  return closing_;
}

void CuipcTransport::HearPeers() {
  for (int32_t rank = 0; rank < size_; ++rank) {
    if (peer(rank) == nullptr) continue;
    const absl::Status heard = peer(rank)->Hear();
    peer(rank)->Flush();
    if (heard.ok()) continue;
    SetError(rank, "peer " + std::to_string(rank) + ": " + std::string(heard.message()));
    host_->abort(control_, "a peer shared what cannot be");
  }
}

void CuipcTransport::ForgetAll() {
  std::lock_guard lock(mutex_);
  for (Forgetting& each : forgetting_) {
    if (each.done) continue;
    bool all = true;
    for (const auto& peer : peers_) {
      if (peer == nullptr) continue;
      if (!each.begun) peer->Forget(each.id);
      all = all && peer->Forgotten(each.id);
    }
    each.begun = true;
    each.done = all;
  }
  forgotten_.notify_all();
}

// Our memory is about to be the caller's alone: peers unmap it when they hear that this side ends,
// and end theirs once it is done.
void CuipcTransport::EndSides() {
  const int64_t until_ns = NowNs() + kFarewellNs;
  for (const auto& each : peers_) {
    if (each != nullptr) each->side().End();
  }
  while (NowNs() < until_ns) {
    std::vector<pollfd> events;
    for (const auto& each : peers_) {
      if (each == nullptr || each->ended()) continue;
      if (!each->Hear().ok()) continue;
      if (!each->ended()) events.push_back({each->side().fd(), POLLIN, 0});
    }
    if (events.empty()) return;
    ::poll(events.data(), events.size(), 10);
  }
}

void CuipcTransport::AdvanceAll() {
  for (auto at = operations_.begin(); at != operations_.end();) {
    while (Advance(at->get())) {
    }
    at = ReturnRequests(at->get()) ? operations_.erase(at) : std::next(at);
  }
}

bool CuipcTransport::Advance(Operation* operation) {
  switch (operation->stage) {
    case Operation::Stage::kHostMemory:
      return OnHostMemory(operation);
    case Operation::Stage::kSharing:
      return OnSharing(operation);
    case Operation::Stage::kOffered:
      return OnOffered(operation);
    case Operation::Stage::kQuieting:
      return OnQuieting(operation);
    case Operation::Stage::kAwaitsOffer:
      return OnAwaitsOffer(operation);
    case Operation::Stage::kAwaitsPieces:
      return OnAwaitsPieces(operation);
    case Operation::Stage::kCopying:
      return OnCopying(operation);
    case Operation::Stage::kAnswering:
      return OnAnswering(operation);
    case Operation::Stage::kOver:
      return false;
  }
  return false;
}

bool CuipcTransport::OnHostMemory(Operation* operation) {
  int32_t done = 0;
  annulusCompletion end{};
  host_->test(operation->data, &done, &end);
  if (done == 0) return false;
  host_->release(operation->data);
  operation->data = nullptr;
  operation->moved_bytes = end.bytes;
  Conclude(operation, end.status, end.start_ns, end.end_ns);
  return true;
}

void CuipcTransport::Conclude(Operation* operation, annulusTransportStatus status, int64_t start_ns,
                              int64_t end_ns) {
  if (operation->copied != nullptr) device_->DestroyEvent(operation->copied);
  operation->copied = nullptr;
  operation->stage = Operation::Stage::kOver;
  operation->completion = {status, operation->peer, start_ns, std::max(start_ns, end_ns),
                           operation->moved_bytes};
  completed_some_ = true;
  if (status == ANNULUS_TRANSPORT_OK) {
    std::lock_guard lock(mutex_);
    (operation->is_send ? stats_.sent_bytes : stats_.received_bytes) += operation->moved_bytes;
  }
  outstanding_.fetch_sub(1);
  operation->done.store(1, std::memory_order_release);
  operation->done.notify_all();
}

bool CuipcTransport::ReturnRequests(Operation* operation) {
  if (operation->stage != Operation::Stage::kOver) return false;
  annulusTransportStatus ignored{};
  bool all = true;
  for (annulusRequest** request : {&operation->offer, &operation->pieces, &operation->answer}) {
    if (*request != nullptr && !Take(request, &ignored)) all = false;
  }
  return all;
}

bool CuipcTransport::PostHost(Operation* operation, bool is_send, uint64_t tag, void* data,
                              size_t bytes, annulusRequest** request) {
  const annulusSegment segment{data, bytes};
  const annulusTransportStatus status = (is_send ? host_->isend : host_->irecv)(
      control_, operation->peer, tag, &segment, 1, operation->deadline_ns, request);
  if (status == ANNULUS_TRANSPORT_OK) return true;
  host_->abort(control_, "no queue entry left for what belongs to a transfer");
  Conclude(operation, status, NowNs(), NowNs());
  return false;
}

bool CuipcTransport::Take(annulusRequest** request, annulusTransportStatus* status) {
  int32_t done = 0;
  annulusCompletion end{};
  host_->test(*request, &done, &end);
  if (done == 0) return false;
  host_->release(*request);
  *request = nullptr;
  *status = end.status;
  return true;
}

bool CuipcTransport::GivesUp(Operation* operation, bool failed) {
  const int64_t now = NowNs();
  if (!failed) return false;
  if (operation->give_up_ns == 0) operation->give_up_ns = now + kQuietNs;
  return now >= operation->give_up_ns;
}

void CuipcTransport::NoteLate(const Operation& operation) {
  SetError(operation.peer, std::string(operation.is_send ? "send to" : "receive from") + " peer " +
                               std::to_string(operation.peer) + ", tag " +
                               std::to_string(operation.tag) + ": " +
                               std::to_string(operation.placement.total) +
                               " bytes were not moved by their deadline");
}

void CuipcTransport::NoteUnsafe(int32_t peer, const std::string& text) {
  std::array<char, 512> first{};
  int32_t suspect = -1;
  LastError(first.data(), first.size(), &suspect);
  std::lock_guard lock(mutex_);
  error_text_ = first[0] == '\0' ? text : first.data() + ("; " + text);
  error_peer_ = suspect < 0 ? peer : suspect;
}

}  // namespace annulus::transport::cuipc
