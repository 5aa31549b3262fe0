// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace annulus::transport {

// Bytes on their way into a non-blocking stream socket: owned bytes (headers and small payloads),
// then at most one borrowed payload that still lies in the caller's memory, then the owned bytes
// queued behind it.
class OutQueue {
 public:
  enum class Result { kDrained, kBlocked, kBroken };

  bool empty() const { return pending() == 0; }
  size_t pending() const { return head_.size() - head_sent_ + borrowed_bytes_ + tail_.size(); }
  bool has_borrowed() const { return borrowed_bytes_ > 0; }

  void Append(std::span<const uint8_t> bytes);
  // Queues `pieces` in place. Precondition: !has_borrowed(). They must stay readable until
  // has_borrowed() is false again.
  void Borrow(const std::vector<iovec>& pieces);
  // Copies what is still borrowed, so that the caller may have his memory back.
  void Detach();
  // Writes as much as the socket takes.
  Result Flush(int fd);

 private:
  void Advance(size_t bytes);

  std::vector<uint8_t> head_;
  size_t head_sent_ = 0;
  std::vector<iovec> borrowed_;
  size_t borrowed_index_ = 0;
  size_t borrowed_bytes_ = 0;
  std::vector<uint8_t> tail_;
};

}  // namespace annulus::transport
