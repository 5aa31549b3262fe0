// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "server/transport/host/clock.h"
#include "server/transport/host/fault_injection.h"
#include "server/transport/host/link.h"

namespace annulus::transport {
namespace {

// Smaller chunks are copied into the socket's queue: cheaper than a slot or a borrowed payload.
constexpr size_t kInlineBytes = 8192;
constexpr size_t kOutQueueBytes = size_t{1} << 20;
constexpr int kChunksPerPump = 4;  // then other links get their turn

}  // namespace

bool Link::Pump() {
  if (state_ == State::kIdle || state_ == State::kDialing || !fd_) return false;
  int chunks = 0;
  bool more = true;
  while (more && !broken_) {
    if (out_.Flush(fd_.get()) == OutQueue::Result::kBroken) {
      OnBrokenPipe();
      return false;
    }
    SettleBorrowed();
    if (chunks == kChunksPerPump) return !active_.empty();
    more = false;
    for (size_t tries = active_.size(); tries > 0 && !more; --tries) {
      const OperationPtr operation = std::move(active_.front());
      active_.pop_front();
      more = SendChunk(operation);
      const bool complete = operation->moved == operation->total;
      if (more) out_.Flush(fd_.get());  // the peer first, then whoever waits here
      if (more && operation != borrowed_ && complete) {
        sends_.erase(operation->tag);
        Finish(operation, ANNULUS_TRANSPORT_OK);
      } else if (operation != borrowed_) {
        active_.push_back(operation);
      }
    }
    ++chunks;
  }
  return false;
}

void Link::OnBrokenPipe() {
  if (!live()) return Hangup();
  OnReadable();  // what the peer said last tells more than the broken pipe
  if (!broken_ && live()) Lost("is gone: its connection broke");
}

void Link::Match(const OperationPtr& operation, uint64_t receiver_total) {
  operation->matched = true;
  if (receiver_total == operation->total) {
    active_.push_back(operation);
    return;
  }
  owner_->OnNote(peer_.source, "tag " + std::to_string(operation->tag) + ": " +
                                   std::to_string(operation->total) + " bytes to send, but peer " +
                                   std::to_string(peer_.source) + " receives " +
                                   std::to_string(receiver_total));
  Queue({.type = FrameType::kMismatch, .tag = operation->tag, .value = operation->total});
  DropSend(operation, ANNULUS_TRANSPORT_MISMATCH);
}

bool Link::SendChunk(const OperationPtr& operation) {
  const size_t length = std::min<uint64_t>(kChunkBytes, operation->total - operation->moved);
  const bool inlined = length <= kInlineBytes;
  if (inlined && out_.pending() > kOutQueueBytes) return false;
  if (!inlined && ring_ != nullptr && credits_ == 0) return false;
  if (!inlined && ring_ == nullptr && (out_.has_borrowed() || borrowed_ != nullptr)) return false;
  if (operation->start_ns == 0) operation->start_ns = NowNs();
  pieces_.clear();
  operation->cursor.Take(length, &pieces_);
  if (!inlined && ring_ != nullptr) {
    SendThroughRing(operation, length);
  } else {
    SendOnSocket(operation, length);
  }
  operation->moved += length;
  return true;
}

void Link::SendThroughRing(const OperationPtr& operation, size_t length) {
  uint8_t* const slot = ring_->out(out_slot_);
  uint8_t* at = slot;
  Crc32c crc;
  for (const iovec& piece : pieces_) {
    crc.Add(piece.iov_base, piece.iov_len);
    std::memcpy(at, piece.iov_base, piece.iov_len);
    at += piece.iov_len;
  }
  if (ChunkDamage::Take()) slot[length / 2] ^= 0x10;
  const Frame frame{.type = FrameType::kSlot,
                    .length = static_cast<uint32_t>(length),
                    .tag = operation->tag,
                    .offset = operation->moved,
                    .value = out_slot_,
                    .payload_crc = crc.value()};
  Queue(frame);
  out_slot_ = (out_slot_ + 1) % kRingSlots;
  --credits_;
}

void Link::SendOnSocket(const OperationPtr& operation, size_t length) {
  Crc32c crc;
  for (const iovec& piece : pieces_) crc.Add(piece.iov_base, piece.iov_len);
  const Frame frame{.type = FrameType::kData,
                    .length = static_cast<uint32_t>(length),
                    .tag = operation->tag,
                    .offset = operation->moved,
                    .payload_crc = crc.value() ^ (ChunkDamage::Take() ? 1u : 0u)};
  Queue(frame);
  if (length > kInlineBytes) {
    out_.Borrow(pieces_);
    borrowed_ = operation;
    return;
  }
  for (const iovec& piece : pieces_) {
    out_.Append({static_cast<const uint8_t*>(piece.iov_base), piece.iov_len});
  }
}

void Link::SettleBorrowed() {
  if (borrowed_ == nullptr || out_.has_borrowed()) return;
  const OperationPtr operation = std::move(borrowed_);
  borrowed_.reset();
  if (operation->moved < operation->total) {
    active_.push_back(operation);
    return;
  }
  sends_.erase(operation->tag);
  Finish(operation, ANNULUS_TRANSPORT_OK);
}

void Link::DropSend(const OperationPtr& operation, annulusTransportStatus status) {
  if (borrowed_ == operation) {
    out_.Detach();
    borrowed_.reset();
  }
  std::erase(active_, operation);
  sends_.erase(operation->tag);
  Finish(operation, status);
}

}  // namespace annulus::transport
