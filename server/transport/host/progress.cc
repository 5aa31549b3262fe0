// SPDX-License-Identifier: Apache-2.0
// The progress thread of the host transport.
#include <pthread.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <limits>

#include "server/transport/host/clock.h"
#include "server/transport/host/event_key.h"
#include "server/transport/host/host_transport.h"

namespace annulus::transport {
namespace {

constexpr int64_t kMillisecondNs = 1'000'000;
constexpr int64_t kLingerNs = 500 * kMillisecondNs;
constexpr int64_t kPollNs = 2 * kMillisecondNs;  // while closing or redialling
constexpr int kMissedBeatsMax = 5;

}  // namespace

void HostTransport::Run() {
  ::pthread_setname_np(::pthread_self(), "annulus-host");
  Watch(wake_.get(), EventKey(EventKind::kWake, 0), EPOLLIN);
  next_beat_ns_ = NowNs() + beat_ns_;
  std::array<epoll_event, 128> events;
  while (true) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), TimeoutMs());
    for (int i = 0; i < count; ++i)
      HandleEvent(events[static_cast<size_t>(i)].data.u64, events[static_cast<size_t>(i)].events);
    TakeInbox();
    // Beats may still wait unread when the call was interrupted, or when more sockets are ready
    // than it reports: no judging yet.
    if (count >= 0 && count < static_cast<int>(events.size())) RunTimers();
    ApplyFault();
    PumpLinks();
    ApplyFault();
    NotifyDone();
    if (closing_ && FinishClosing()) return;
  }
}

int HostTransport::TimeoutMs() const {
  if (!dirty_.empty()) return 0;
  const int64_t now = NowNs();
  int64_t next = std::min(next_beat_ns_, next_deadline_ns_);
  if (closing_ || !redial_.empty()) next = std::min(next, now + kPollNs);
  if (joining_) next = std::min(next, connect_deadline_ns_);
  const int64_t wait = std::max<int64_t>(0, next - now);
  return static_cast<int>(std::min<int64_t>((wait + kMillisecondNs - 1) / kMillisecondNs, 1000));
}

void HostTransport::HandleEvent(uint64_t key, uint32_t events) {
  switch (KindOf(key)) {
    case EventKind::kWake: {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
      return;
    }
    case EventKind::kUnixListener:
      return OnAccept(unix_listener_.get(), true);
    case EventKind::kTcpListener:
      return OnAccept(tcp_listener_.get(), false);
    case EventKind::kCaller:
      return OnCaller(IndexOf(key));
    case EventKind::kLink:
      break;
  }
  const auto peer = static_cast<int32_t>(IndexOf(key));
  Link* const ready = link(peer);
  if (ready->state() == Link::State::kDialing) {
    OnDialled(ready);
  } else if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) {
    ready->OnReadable();
  }
  MarkDirty(peer);
}

void HostTransport::TakeInbox() {
  std::vector<OperationPtr> posted;
  std::optional<Fault> requested;
  bool join = false;
  bool close = false;
  {
    std::lock_guard lock(inbox_mutex_);
    woken_ = false;
    posted.swap(posted_);
    requested.swap(requested_fault_);
    std::swap(join, join_requested_);
    close = closing_requested_;
  }
  if (join) StartJoining();
  for (const OperationPtr& operation : posted) {
    if (fault_applied_ || closing_) {
      const annulusTransportStatus status =
          fault_.has_value() ? fault_->status : ANNULUS_TRANSPORT_ABORTED;
      OnDone(*operation, status);
      operation->Finish(status, NowNs());
      continue;
    }
    next_deadline_ns_ = std::min(next_deadline_ns_, operation->deadline_ns);
    link(operation->peer)->Post(operation);
    MarkDirty(operation->peer);
  }
  if (requested.has_value()) OnLinkFault(requested->status, requested->suspect, requested->text);
  if (close && !closing_) StartClosing();
}

void HostTransport::PumpLinks() {
  std::vector<int32_t> dirty;
  dirty.swap(dirty_);
  for (const int32_t peer : dirty) {
    dirty_flags_[static_cast<size_t>(peer)] = false;
    if (link(peer) == nullptr) continue;  // it is no peer after all
    if (link(peer)->Pump()) MarkDirty(peer);
    UpdateInterest(peer);
  }
}

void HostTransport::RunTimers() {
  const int64_t now = NowNs();
  if (joining_ && now >= connect_deadline_ns_) {
    OnLinkFault(ANNULUS_TRANSPORT_DEADLINE, -1, "not connected by the deadline: " + MissingRanks());
  }
  if (!redial_.empty() && !fault_.has_value()) {
    std::vector<int32_t> again;
    again.swap(redial_);
    for (const int32_t peer : again) Dial(peer);
  }
  if (now >= next_deadline_ns_) {
    next_deadline_ns_ = std::numeric_limits<int64_t>::max();
    for (const auto& each : links_) {
      if (each == nullptr || !each->busy()) continue;
      each->Expire(now);
      next_deadline_ns_ = std::min(next_deadline_ns_, each->NextDeadline());
    }
  }
  if (now < next_beat_ns_) return;
  next_beat_ns_ = now + beat_ns_;  // beats that were slept through are not made up for
  reception_.Expire(now);
  for (int32_t peer = 0; peer < self_.size; ++peer) {
    if (link(peer) == nullptr) continue;
    link(peer)->Tick(kMissedBeatsMax, peer_timeout_seconds_);
    MarkDirty(peer);
  }
}

void HostTransport::ApplyFault() {
  if (!fault_.has_value() || fault_applied_) return;
  fault_applied_ = true;
  joining_ = false;
  redial_.clear();
  SetError(fault_->suspect, fault_->text);
  for (int32_t peer = 0; peer < self_.size; ++peer) {
    if (link(peer) == nullptr) continue;
    link(peer)->Fail(fault_->status, fault_->suspect, fault_->text);
    MarkDirty(peer);
  }
  std::lock_guard lock(state_mutex_);
  if (fault_->status == ANNULUS_TRANSPORT_CORRUPTED) ++stats_.corrupted;
  phase_ = Phase::kFailed;
  failure_ = fault_->status;
  state_changed_.notify_all();
}

void HostTransport::NotifyDone() {
  if (!completed_some_) return;
  completed_some_ = false;
  std::lock_guard lock(state_mutex_);
  if (notify_ != nullptr) notify_(notify_context_);
}

void HostTransport::StartClosing() {
  closing_ = true;
  linger_until_ns_ = NowNs() + kLingerNs;
  const bool busy = std::any_of(links_.begin(), links_.end(),
                                [](const auto& each) { return each != nullptr && each->busy(); });
  if (busy)
    OnLinkFault(ANNULUS_TRANSPORT_ABORTED, -1, "aborted: closed with operations outstanding");
  ApplyFault();
  for (const auto& each : links_) {
    if (each != nullptr) each->SendBye();
  }
}

bool HostTransport::FinishClosing() {
  if (NowNs() >= linger_until_ns_) return true;
  return std::all_of(links_.begin(), links_.end(),
                     [](const auto& each) { return each == nullptr || each->Flushed(); });
}

void HostTransport::OnLinkFault(annulusTransportStatus status, int32_t suspect, std::string text) {
  if (!fault_.has_value()) fault_ = Fault{status, suspect, std::move(text)};
}

void HostTransport::OnDone(const Operation& operation, annulusTransportStatus status) {
  outstanding_.fetch_sub(1);
  completed_some_ = true;
  if (status != ANNULUS_TRANSPORT_OK) return;
  std::lock_guard lock(state_mutex_);
  (operation.is_send ? stats_.sent_bytes : stats_.received_bytes) += operation.moved;
}

void HostTransport::OnNote(int32_t peer, std::string text) { SetError(peer, text); }

void HostTransport::Watch(int fd, uint64_t key, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = key;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void HostTransport::MarkDirty(int32_t peer) {
  if (dirty_flags_[static_cast<size_t>(peer)]) return;
  dirty_flags_[static_cast<size_t>(peer)] = true;
  dirty_.push_back(peer);
}

void HostTransport::UpdateInterest(int32_t peer) {
  Link* const each = link(peer);
  const bool wanted = each->fd() >= 0 && each->wants_write();
  if (each->fd() < 0 || wanted == write_interest_[static_cast<size_t>(peer)]) return;
  write_interest_[static_cast<size_t>(peer)] = wanted;
  epoll_event event{};
  event.events = EPOLLIN | (wanted ? static_cast<uint32_t>(EPOLLOUT) : 0u);
  event.data.u64 = EventKey(EventKind::kLink, static_cast<uint32_t>(peer));
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, each->fd(), &event);
}

}  // namespace annulus::transport
