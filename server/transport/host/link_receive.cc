// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "server/transport/host/clock.h"
#include "server/transport/host/link.h"

namespace annulus::transport {
namespace {

constexpr size_t kReadBudget = size_t{1} << 20;  // bytes per turn, then other links get theirs
constexpr size_t kPiecesReadMax = 64;
constexpr size_t kReadyMax = size_t{1} << 16;
constexpr size_t kAbandonedMax = size_t{1} << 16;

annulusTransportStatus ReportedStatus(uint64_t value) {
  const auto status = static_cast<uint32_t>(value);
  // A peer's status is taken over where it is a failure that this side may report as its own.
  if (status == ANNULUS_TRANSPORT_PEER_LOST || status == ANNULUS_TRANSPORT_CORRUPTED ||
      status == ANNULUS_TRANSPORT_RESOURCE) {
    return static_cast<annulusTransportStatus>(status);
  }
  return ANNULUS_TRANSPORT_ABORTED;
}

}  // namespace

void Link::OnReadable() {
  if (state_ == State::kDown) return Drain();
  size_t read = 0;
  while (read < kReadBudget && live() && !broken_) {
    const ssize_t got = ReadSome();
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      Lost(got == 0 ? "is gone: its connection closed"
                    : std::string("is gone: ") + std::strerror(errno));
      return;
    }
    heard_ = true;
    read += static_cast<size_t>(got);
    ConsumeBuffer();
  }
}

ssize_t Link::ReadSome() {
  if (payload_left_ == 0) {
    if (buffer_begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + buffer_begin_, buffer_end_ - buffer_begin_);
      buffer_end_ -= buffer_begin_;
      buffer_begin_ = 0;
    }
    const ssize_t got =
        ::recv(fd_.get(), buffer_.data() + buffer_end_, buffer_.size() - buffer_end_, MSG_DONTWAIT);
    if (got > 0) buffer_end_ += static_cast<size_t>(got);
    return got;
  }
  // Straight to where the bytes belong; the buffer is empty while a payload is open.
  msghdr message{};
  message.msg_iov = targets_.data() + target_index_;
  message.msg_iovlen = std::min(targets_.size() - target_index_, kPiecesReadMax);
  const ssize_t got = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT);
  if (got > 0) Landed(static_cast<size_t>(got));
  return got;
}

void Link::Drain() {
  uint8_t waste[4096];
  while (fd_) {
    const ssize_t got = ::recv(fd_.get(), waste, sizeof(waste), MSG_DONTWAIT);
    if (got > 0 || (got < 0 && errno == EINTR)) continue;
    if (got < 0 && errno == EAGAIN) return;
    Hangup();
  }
}

void Link::ConsumeBuffer() {
  while (!broken_ && live()) {
    const size_t have = buffer_end_ - buffer_begin_;
    if (payload_left_ > 0) {
      if (have == 0) return;
      iovec& target = targets_[target_index_];
      const size_t taken = std::min(have, target.iov_len);
      std::memcpy(target.iov_base, buffer_.data() + buffer_begin_, taken);
      buffer_begin_ += taken;
      Landed(taken);
      continue;
    }
    if (have < kFrameBytes) return;
    Frame frame;
    const FrameError error = DecodeFrame(
        std::span<const uint8_t, kFrameBytes>(buffer_.data() + buffer_begin_, kFrameBytes), &frame);
    buffer_begin_ += kFrameBytes;
    if (error != FrameError::kNone) {
      return Broken(ANNULUS_TRANSPORT_CORRUPTED,
                    "sent a bad frame: " + std::string(FrameErrorName(error)));
    }
    if (!Admits(peer_, frame)) {
      return Broken(ANNULUS_TRANSPORT_CORRUPTED,
                    "sent a frame of rank " + std::to_string(frame.source) + ", epoch " +
                        std::to_string(frame.epoch) + "; expected epoch " +
                        std::to_string(peer_.epoch));
    }
    Dispatch(frame);
  }
}

void Link::Dispatch(const Frame& frame) {
  const bool greeting = frame.type == FrameType::kWelcome || frame.type == FrameType::kRefuse ||
                        frame.type == FrameType::kFault;
  if (state_ == State::kGreeting && !greeting) {
    return Broken(ANNULUS_TRANSPORT_CORRUPTED, "spoke before it answered the greeting");
  }
  switch (frame.type) {
    case FrameType::kWelcome:
      if (state_ != State::kGreeting) return Broken(ANNULUS_TRANSPORT_CORRUPTED, "answered twice");
      state_ = State::kUp;
      return owner_->OnLinkUp(peer_.source);
    case FrameType::kReady:
      return OnReady(frame);
    case FrameType::kData:
    case FrameType::kRefuse:
    case FrameType::kFault:
      return BeginPayload(frame);
    case FrameType::kSlot:
      return OnSlot(frame);
    case FrameType::kCredit:
      if (frame.value > kRingSlots - credits_) {
        return Broken(ANNULUS_TRANSPORT_CORRUPTED, "gave back slots that it did not hold");
      }
      credits_ += frame.value;
      return;
    case FrameType::kMismatch:
      return OnMismatch(frame);
    case FrameType::kBye:
      return OnBye();
    case FrameType::kBeat:
      return;
    case FrameType::kHello:
      return Broken(ANNULUS_TRANSPORT_CORRUPTED, "greeted twice");
  }
}

void Link::OnReady(const Frame& frame) {
  if (auto found = sends_.find(frame.tag); found != sends_.end()) {
    const OperationPtr operation = found->second;
    if (operation->matched) {
      return Broken(ANNULUS_TRANSPORT_CORRUPTED,
                    "announced tag " + std::to_string(frame.tag) + " twice");
    }
    return Match(operation, frame.value);
  }
  if (ready_.size() >= kReadyMax) {
    return Broken(ANNULUS_TRANSPORT_RESOURCE, "waits for more messages than can be kept track of");
  }
  ready_[frame.tag] = frame.value;
}

void Link::OnSlot(const Frame& frame) {
  if (ring_ == nullptr || frame.value != in_slot_) {
    return Broken(ANNULUS_TRANSPORT_CORRUPTED, "named a slot out of turn");
  }
  OperationPtr operation;
  if (!Accepts(frame, &operation)) return;
  const uint8_t* at = ring_->in(in_slot_);
  in_slot_ = (in_slot_ + 1) % kRingSlots;
  if (operation != nullptr) {
    if (operation->start_ns == 0) operation->start_ns = NowNs();
    pieces_.clear();
    operation->cursor.Take(frame.length, &pieces_);
    Crc32c crc;
    for (const iovec& piece : pieces_) {
      std::memcpy(piece.iov_base, at, piece.iov_len);
      crc.Add(piece.iov_base, piece.iov_len);
      at += piece.iov_len;
    }
    incoming_ = frame;
    landing_ = std::move(operation);
    payload_crc_ = crc;
    FinishPayload();
  }
  Queue({.type = FrameType::kCredit, .value = 1});
  out_.Flush(fd_.get());  // at once, so that the peer fills this slot while we empty the next
}

void Link::OnMismatch(const Frame& frame) {
  auto found = receives_.find(frame.tag);
  if (found == receives_.end()) return;
  const OperationPtr operation = found->second;
  owner_->OnNote(peer_.source, "tag " + std::to_string(frame.tag) + ": " +
                                   std::to_string(operation->total) +
                                   " bytes to receive, but peer " + std::to_string(peer_.source) +
                                   " sends " + std::to_string(frame.value));
  receives_.erase(found);
  Finish(operation, ANNULUS_TRANSPORT_MISMATCH);
}

void Link::OnBye() {
  if (busy()) return Lost("has closed its transport with operations outstanding");
  state_ = State::kDeparted;
  Hangup();
}

bool Link::Accepts(const Frame& frame, OperationPtr* operation) {
  const auto found = receives_.find(frame.tag);
  if (found == receives_.end()) {
    if (abandoned_.contains(frame.tag)) return true;
    Broken(ANNULUS_TRANSPORT_CORRUPTED,
           "sent tag " + std::to_string(frame.tag) + ", which nobody receives");
    return false;
  }
  const Operation& receive = *found->second;
  if (frame.offset != receive.moved || frame.length > receive.total - receive.moved) {
    Broken(ANNULUS_TRANSPORT_CORRUPTED, "sent tag " + std::to_string(frame.tag) + " at offset " +
                                            std::to_string(frame.offset) + "; expected offset " +
                                            std::to_string(receive.moved) + " of " +
                                            std::to_string(receive.total));
    return false;
  }
  *operation = found->second;
  return true;
}

void Link::BeginPayload(const Frame& frame) {
  incoming_ = frame;
  targets_.clear();
  target_index_ = 0;
  payload_crc_ = Crc32c();
  landing_.reset();
  if (frame.type == FrameType::kData && !Accepts(frame, &landing_)) return;
  if (landing_ != nullptr) {
    if (landing_->start_ns == 0) landing_->start_ns = NowNs();
    landing_->cursor.Take(frame.length, &targets_);
  } else {
    scratch_.resize(frame.length);
    if (frame.length > 0) targets_.push_back({scratch_.data(), scratch_.size()});
  }
  payload_left_ = frame.length;
  if (payload_left_ == 0) FinishPayload();
}

void Link::Landed(size_t bytes) {
  payload_left_ -= bytes;
  while (bytes > 0) {
    iovec& target = targets_[target_index_];
    const size_t piece = std::min(bytes, target.iov_len);
    payload_crc_.Add(target.iov_base, piece);
    target.iov_base = static_cast<uint8_t*>(target.iov_base) + piece;
    target.iov_len -= piece;
    bytes -= piece;
    if (target.iov_len == 0) ++target_index_;
  }
  if (payload_left_ == 0) FinishPayload();
}

void Link::FinishPayload() {
  const OperationPtr operation = std::move(landing_);
  landing_.reset();
  const bool dropped = operation == nullptr && incoming_.type == FrameType::kData;
  if (!dropped && incoming_.length > 0 && payload_crc_.value() != incoming_.payload_crc) {
    return Broken(ANNULUS_TRANSPORT_CORRUPTED, "sent tag " + std::to_string(incoming_.tag) +
                                                   ", offset " + std::to_string(incoming_.offset) +
                                                   ": checksum mismatch");
  }
  if (operation != nullptr) {
    operation->moved += incoming_.length;
    if (operation->moved < operation->total) return;
    receives_.erase(operation->tag);
    return Finish(operation, ANNULUS_TRANSPORT_OK);
  }
  if (dropped) return;
  const std::string text(scratch_.begin(), scratch_.end());
  broken_ = true;
  if (incoming_.type == FrameType::kRefuse) {
    return owner_->OnLinkFault(
        ANNULUS_TRANSPORT_REFUSED, peer_.source,
        "peer " + std::to_string(peer_.source) + " refused to connect: " + text);
  }
  // An abort has no suspect; whoever called it is the one to ask.
  const int32_t suspect = static_cast<int32_t>(incoming_.value >> 32) - 1;
  owner_->OnLinkFault(ReportedStatus(incoming_.value), suspect < 0 ? peer_.source : suspect,
                      "rank " + std::to_string(peer_.source) + " reports: " + text);
}

void Link::DropReceive(const OperationPtr& operation, annulusTransportStatus status) {
  ForgetPayloadOf(operation.get());
  receives_.erase(operation->tag);
  if (abandoned_.size() >= kAbandonedMax) {
    Broken(ANNULUS_TRANSPORT_RESOURCE, "missed more deadlines than can be kept track of");
  }
  abandoned_.insert(operation->tag);
  Finish(operation, status);
}

void Link::ForgetPayloadOf(const Operation* operation) {
  if (operation == nullptr || landing_.get() != operation) return;
  landing_.reset();
  scratch_.resize(payload_left_);
  targets_.assign(1, {scratch_.data(), scratch_.size()});
  target_index_ = 0;
}

}  // namespace annulus::transport
