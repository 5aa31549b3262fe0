// SPDX-License-Identifier: Apache-2.0
// How the host transport becomes connected: the higher rank calls the lower one.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "server/transport/host/clock.h"
#include "server/transport/host/event_key.h"
#include "server/transport/host/host_transport.h"
#include "server/transport/host/socket.h"

namespace annulus::transport {

void HostTransport::StartJoining() {
  joining_ = true;
  Watch(unix_listener_.get(), EventKey(EventKind::kUnixListener, 0), EPOLLIN);
  Watch(tcp_listener_.get(), EventKey(EventKind::kTcpListener, 0), EPOLLIN);
  for (size_t peer = 0; peer < links_.size(); ++peer) {
    if (IsAbsent(handles_[peer])) links_[peer] = nullptr;
    links_awaited_ += links_[peer] != nullptr;
  }
  if (links_awaited_ == 0) OnLinkUp(self_.rank);
  for (int32_t peer = 0; peer < self_.rank && !fault_.has_value(); ++peer) {
    if (link(peer) != nullptr) Dial(peer);
  }
}

void HostTransport::Dial(int32_t peer) {
  const HandleInfo& handle = handles_[static_cast<size_t>(peer)];
  const bool shared = handle.host == self_.host;
  UniqueFd fd = shared ? DialUnix(handle)
                       : DialTcp(handle, static_cast<int64_t>(peer_timeout_seconds_ * 1e3));
  if (!fd && errno == EAGAIN) {
    redial_.push_back(peer);
    return;
  }
  if (!fd) {
    const bool scarce = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
    OnLinkFault(scarce ? ANNULUS_TRANSPORT_RESOURCE : ANNULUS_TRANSPORT_PEER_LOST, peer,
                "peer " + std::to_string(peer) + " cannot be connected: " + std::strerror(errno));
    return;
  }
  Link* const calling = link(peer);
  Watch(fd.get(), EventKey(EventKind::kLink, static_cast<uint32_t>(peer)), EPOLLIN | EPOLLOUT);
  write_interest_[static_cast<size_t>(peer)] = true;
  calling->Adopt(std::move(fd), nullptr, Link::State::kDialing);
  if (shared) SayHello(calling);
}

void HostTransport::OnDialled(Link* calling) {
  int error = 0;
  socklen_t length = sizeof(error);
  ::getsockopt(calling->fd(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error == 0) return SayHello(calling);
  OnLinkFault(
      ANNULUS_TRANSPORT_PEER_LOST, calling->peer(),
      "peer " + std::to_string(calling->peer()) + " cannot be connected: " + std::strerror(error));
}

void HostTransport::SayHello(Link* calling) {
  const HandleInfo& callee = handles_[static_cast<size_t>(calling->peer())];
  HelloBody hello;
  hello.caller_nonce = self_.nonce;
  hello.callee_nonce = callee.nonce;
  UniqueFd memory;
  if (callee.host == self_.host) {
    hello.slot_bytes = kChunkBytes;
    hello.slot_count = kRingSlots;
    std::unique_ptr<ShmRing> ring = ShmRing::Create(&memory);
    if (ring == nullptr) {
      return OnLinkFault(ANNULUS_TRANSPORT_RESOURCE, calling->peer(),
                         "no shared memory for the ring");
    }
    calling->ShareMemory(std::move(ring));
  }
  calling->Greet(hello, self_.size, memory.get());
  MarkDirty(calling->peer());
}

void HostTransport::OnAccept(int listener, bool over_unix) {
  std::vector<uint32_t> added;
  if (!reception_.Accept(listener, over_unix, NowNs(), &added)) {
    // Nobody can be let in any more; without this the listener would wake us for ever.
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener, nullptr);
    if (joining_)
      OnLinkFault(ANNULUS_TRANSPORT_RESOURCE, -1, "no descriptor left to accept a peer");
  }
  for (const uint32_t id : added) {
    const int fd = reception_.FdOf(id);
    if (fd >= 0) Watch(fd, EventKey(EventKind::kCaller, id), EPOLLIN);
  }
}

void HostTransport::OnCaller(uint32_t id) {
  std::optional<Reception::Caller> caller = reception_.Read(id);
  if (!caller.has_value()) return;
  bool stale = false;
  const std::string refusal = AdmitCaller(&*caller, &stale);
  if (refusal.empty()) return;
  Refuse(caller->fd.get(), fence_, refusal);
  std::lock_guard lock(state_mutex_);
  ++stats_.refused_connections;
  if (stale) ++stats_.stale_epoch;
}

std::string HostTransport::AdmitCaller(Reception::Caller* caller, bool* stale) {
  const Verdict verdict = JudgeGreeting(caller->bytes, handles_, self_.rank, caller->over_unix);
  *stale = verdict.stale;
  if (verdict.rank < 0) return verdict.refusal;
  Link* const called = link(verdict.rank);
  if (called->state() != Link::State::kIdle) return "already connected";
  if (fault_.has_value() || closing_)
    return "the transport has failed: " + (fault_.has_value() ? fault_->text : "closing");
  std::unique_ptr<ShmRing> ring;
  if (caller->over_unix) {
    ring = ShmRing::Adopt(caller->passed);
    if (ring == nullptr) return "the shared ring cannot be used";
  } else {
    TuneTcp(caller->fd.get(), static_cast<int64_t>(peer_timeout_seconds_ * 1e3));
  }
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, caller->fd.get(), nullptr);
  Watch(caller->fd.get(), EventKey(EventKind::kLink, static_cast<uint32_t>(verdict.rank)), EPOLLIN);
  write_interest_[static_cast<size_t>(verdict.rank)] = false;
  called->Adopt(std::move(caller->fd), std::move(ring), Link::State::kUp);
  MarkDirty(verdict.rank);
  return "";
}

void HostTransport::OnLinkUp(int32_t peer) {
  if (peer != self_.rank) ++links_up_;
  if (links_up_ < links_awaited_ || fault_.has_value()) return;
  joining_ = false;
  std::lock_guard lock(state_mutex_);
  phase_ = Phase::kUp;
  state_changed_.notify_all();
}

std::string HostTransport::MissingRanks() const {
  std::string missing;
  for (size_t peer = 0; peer < links_.size(); ++peer) {
    if (links_[peer] == nullptr || links_[peer]->state() == Link::State::kUp) continue;
    missing += (missing.empty() ? "no word from rank " : ", ") + std::to_string(peer);
  }
  return missing;
}

}  // namespace annulus::transport
