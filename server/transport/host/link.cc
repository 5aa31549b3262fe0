// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/link.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <limits>

#include "server/transport/host/clock.h"
#include "server/transport/host/socket.h"

namespace annulus::transport {

Link::Link(LinkOwner* owner, const Fence& self, int32_t peer)
    : owner_(owner), self_(self), peer_{self.group, self.epoch, peer} {}

void Link::Adopt(UniqueFd fd, std::unique_ptr<ShmRing> ring, State state) {
  fd_ = std::move(fd);
  ring_ = std::move(ring);
  state_ = state;
  heard_ = true;
  if (state_ != State::kUp) return;
  Queue({.type = FrameType::kWelcome});
  owner_->OnLinkUp(peer_.source);
}

void Link::Greet(const HelloBody& hello, int32_t size, int passed_fd) {
  Frame frame{.type = FrameType::kHello,
              .source = self_.source,
              .length = kHelloBytes,
              .group = self_.group,
              .epoch = self_.epoch,
              .value = static_cast<uint64_t>(size)};
  const auto body = EncodeHello(hello);
  frame.payload_crc = Crc32cOf(body.data(), body.size());
  const FrameHeader header = EncodeFrame(frame);
  std::array<uint8_t, kFrameBytes + kHelloBytes> bytes;
  std::copy(header.begin(), header.end(), bytes.begin());
  std::copy(body.begin(), body.end(), bytes.begin() + kFrameBytes);
  state_ = State::kGreeting;
  if (!SendWithFd(fd_.get(), bytes.data(), bytes.size(), passed_fd)) Lost("refused the greeting");
}

void Link::Post(const OperationPtr& operation) {
  if (state_ == State::kDeparted) {
    Finish(operation, ANNULUS_TRANSPORT_PEER_LOST);
    Broken(ANNULUS_TRANSPORT_PEER_LOST, "has closed its transport, but is still needed");
    return;
  }
  auto& table = operation->is_send ? sends_ : receives_;
  const bool used = !operation->is_send && abandoned_.contains(operation->tag);
  if (used || !table.emplace(operation->tag, operation).second) {
    owner_->OnNote(peer_.source, "tag " + std::to_string(operation->tag) +
                                     " is already in use with peer " +
                                     std::to_string(peer_.source));
    Finish(operation, ANNULUS_TRANSPORT_INVALID_ARGUMENT);
    return;
  }
  if (!operation->is_send) {
    Queue({.type = FrameType::kReady, .tag = operation->tag, .value = operation->total});
    return;
  }
  if (auto found = ready_.find(operation->tag); found != ready_.end()) {
    const uint64_t total = found->second;
    ready_.erase(found);
    Match(operation, total);
  }
}

void Link::Tick(int missed_max, double timeout_seconds) {
  if (state_ != State::kUp || broken_) return;
  if (heard_) {
    heard_ = false;
    missed_ = 0;
  } else if (++missed_ >= missed_max) {
    char text[64];
    std::snprintf(text, sizeof(text), "was silent for %.1f s", timeout_seconds);
    Lost(text);
    return;
  }
  if (out_.empty()) Queue({.type = FrameType::kBeat});
}

void Link::Expire(int64_t now_ns) {
  for (auto* table : {&sends_, &receives_}) {
    std::vector<OperationPtr> late;
    for (const auto& [tag, operation] : *table) {
      if (operation->deadline_ns <= now_ns) late.push_back(operation);
    }
    for (const OperationPtr& operation : late) {
      owner_->OnNote(peer_.source, std::string(operation->is_send ? "send to" : "receive from") +
                                       " peer " + std::to_string(peer_.source) + ", tag " +
                                       std::to_string(operation->tag) + ": " +
                                       std::to_string(operation->moved) + " of " +
                                       std::to_string(operation->total) + " bytes by its deadline");
      if (operation->is_send) {
        DropSend(operation, ANNULUS_TRANSPORT_DEADLINE);
      } else {
        DropReceive(operation, ANNULUS_TRANSPORT_DEADLINE);
      }
    }
  }
}

int64_t Link::NextDeadline() const {
  int64_t next = std::numeric_limits<int64_t>::max();
  for (const auto* table : {&sends_, &receives_}) {
    for (const auto& [tag, operation] : *table) next = std::min(next, operation->deadline_ns);
  }
  return next;
}

void Link::Fail(annulusTransportStatus status, int32_t suspect, std::string_view text) {
  out_.Detach();
  borrowed_.reset();
  active_.clear();
  ForgetPayloadOf(landing_.get());
  for (auto* table : {&sends_, &receives_}) {
    for (const auto& [tag, operation] : *table) Finish(operation, status);
    table->clear();
  }
  if (state_ == State::kUp) {
    text = text.substr(0, kTextBytes);
    const uint64_t value =
        static_cast<uint64_t>(status) | (static_cast<uint64_t>(suspect + 1) << 32);
    Queue({.type = FrameType::kFault, .value = value},
          {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  if (state_ != State::kUp) Hangup();
  state_ = State::kDown;
  broken_ = false;  // the reason still has to leave
}

void Link::SendBye() {
  if (state_ == State::kUp) Queue({.type = FrameType::kBye});
  state_ = State::kDown;
}

bool Link::Flushed() {
  if (!fd_) return true;
  if (out_.Flush(fd_.get()) == OutQueue::Result::kBlocked) return false;
  if (ring_ != nullptr) return true;  // what a UNIX socket took is in the peer's queue
  // Closing with unread bytes resets a TCP connection and drops what the peer's kernel has not
  // acknowledged.
  int unacknowledged = 0;
  return ::ioctl(fd_.get(), SIOCOUTQ, &unacknowledged) != 0 || unacknowledged == 0;
}

void Link::Queue(Frame frame, std::span<const uint8_t> payload) {
  frame.source = self_.source;
  frame.group = self_.group;
  frame.epoch = self_.epoch;
  if (!payload.empty()) {
    frame.length = static_cast<uint32_t>(payload.size());
    frame.payload_crc = Crc32cOf(payload.data(), payload.size());
  }
  out_.Append(EncodeFrame(frame));
  out_.Append(payload);
}

void Link::Broken(annulusTransportStatus status, const std::string& text) {
  broken_ = true;
  owner_->OnLinkFault(status, peer_.source, "peer " + std::to_string(peer_.source) + " " + text);
}

void Link::Lost(std::string_view how) { Broken(ANNULUS_TRANSPORT_PEER_LOST, std::string(how)); }

void Link::Finish(const OperationPtr& operation, annulusTransportStatus status) {
  owner_->OnDone(*operation, status);
  operation->Finish(status, NowNs());
}

}  // namespace annulus::transport
