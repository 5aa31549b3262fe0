// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/out_queue.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace annulus::transport {
namespace {

constexpr size_t kPiecesWrittenMax = 64;

}  // namespace

void OutQueue::Append(std::span<const uint8_t> bytes) {
  std::vector<uint8_t>& to = has_borrowed() ? tail_ : head_;
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void OutQueue::Borrow(const std::vector<iovec>& pieces) {
  borrowed_ = pieces;
  borrowed_index_ = 0;
  borrowed_bytes_ = 0;
  for (const iovec& piece : pieces) borrowed_bytes_ += piece.iov_len;
}

void OutQueue::Detach() {
  for (size_t i = borrowed_index_; i < borrowed_.size(); ++i) {
    const auto* data = static_cast<const uint8_t*>(borrowed_[i].iov_base);
    head_.insert(head_.end(), data, data + borrowed_[i].iov_len);
  }
  borrowed_.clear();
  borrowed_index_ = 0;
  borrowed_bytes_ = 0;
  head_.insert(head_.end(), tail_.begin(), tail_.end());
  tail_.clear();
}

OutQueue::Result OutQueue::Flush(int fd) {
  while (!empty()) {
    std::array<iovec, kPiecesWrittenMax> pieces;
    size_t count = 0;
    if (head_sent_ < head_.size()) {
      pieces[count++] = {head_.data() + head_sent_, head_.size() - head_sent_};
    }
    size_t next = borrowed_index_;
    while (next < borrowed_.size() && count < kPiecesWrittenMax)
      pieces[count++] = borrowed_[next++];
    if (next == borrowed_.size() && !tail_.empty() && count < kPiecesWrittenMax) {
      pieces[count++] = {tail_.data(), tail_.size()};
    }
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN ? Result::kBlocked : Result::kBroken;
    Advance(static_cast<size_t>(sent));
  }
  return Result::kDrained;
}

void OutQueue::Advance(size_t bytes) {
  const size_t from_head = std::min(bytes, head_.size() - head_sent_);
  head_sent_ += from_head;
  bytes -= from_head;
  if (head_sent_ == head_.size()) {
    head_.clear();
    head_sent_ = 0;
  }
  while (bytes > 0 && borrowed_index_ < borrowed_.size()) {
    iovec& piece = borrowed_[borrowed_index_];
    const size_t taken = std::min(bytes, piece.iov_len);
    piece.iov_base = static_cast<uint8_t*>(piece.iov_base) + taken;
    piece.iov_len -= taken;
    borrowed_bytes_ -= taken;
    bytes -= taken;
    if (piece.iov_len == 0) ++borrowed_index_;
  }
  if (borrowed_bytes_ == 0 && !tail_.empty()) {
    // Only now is the tail next in line, and part of it may have gone with this very write.
    head_.swap(tail_);
    tail_.clear();
    head_sent_ = bytes;
  }
}

}  // namespace annulus::transport
