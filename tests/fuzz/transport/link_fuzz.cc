// SPDX-License-Identifier: Apache-2.0
// A link whose peer says anything at all. The input is a script: each record becomes a frame with a
// right checksum and fence (or raw bytes), so that the state machine behind the parser is reached.
// Whatever the peer says, the link must neither write outside the segments it was given nor touch
// an operation after it is complete.
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "server/transport/host/bytes.h"
#include "server/transport/host/link.h"

namespace annulus::transport {
namespace {

constexpr size_t kRecordBytes = 16;
constexpr size_t kGuardBytes = 64;
constexpr uint8_t kGuard = 0xA5;

class Owner final : public LinkOwner {
 public:
  void OnLinkFault(annulusTransportStatus status, int32_t suspect, std::string text) override {
    if (!failed) {
      failed = true;
      fault = status;
      who = suspect;
      why = std::move(text);
    }
  }
  void OnLinkUp(int32_t) override {}
  void OnDone(const Operation& operation, annulusTransportStatus) override {
    if (operation.done.load() != 0) std::abort();  // completed twice
  }
  void OnNote(int32_t, std::string) override {}

  bool failed = false;
  annulusTransportStatus fault = ANNULUS_TRANSPORT_OK;
  int32_t who = -1;
  std::string why;
};

// Two sends and three receives, in memory between guards.
class Operations {
 public:
  Operations() : memory_(kTotal + kGuardBytes * (kCount + 1), kGuard) {
    size_t at = kGuardBytes;
    for (size_t i = 0; i < kCount; ++i) {
      auto operation = std::make_shared<Operation>();
      operation->peer = 1;
      operation->tag = i % 3;
      operation->is_send = i >= 3;
      operation->total = kSizes[i];
      operation->deadline_ns = std::numeric_limits<int64_t>::max();
      operation->segments = {{memory_.data() + at, kSizes[i] / 3},
                             {memory_.data() + at + kSizes[i] / 3, kSizes[i] - kSizes[i] / 3}};
      operation->cursor = SegmentCursor(operation->segments);
      all_.push_back(std::move(operation));
      at += kSizes[i] + kGuardBytes;
    }
  }

  const std::vector<OperationPtr>& all() const { return all_; }

  void CheckGuards() const {
    size_t at = 0;
    for (size_t i = 0; i <= kCount; ++i) {
      for (size_t byte = 0; byte < kGuardBytes; ++byte) {
        if (memory_[at + byte] != kGuard) std::abort();
      }
      if (i < kCount) at += kGuardBytes + kSizes[i];
    }
  }

 private:
  static constexpr size_t kCount = 5;
  static constexpr std::array<size_t, kCount> kSizes = {10, 5000, 0, 20'000, 300};
  static constexpr size_t kTotal = 10 + 5000 + 0 + 20'000 + 300;

  std::vector<uint8_t> memory_;
  std::vector<OperationPtr> all_;
};

// What the record makes the peer say.
std::vector<uint8_t> Speak(const uint8_t* record) {
  if (record[0] == 0xFF) return std::vector<uint8_t>(record, record + kRecordBytes);
  Frame frame{.type = static_cast<FrameType>(1 + record[0] % 11),
              .source = 1,
              .length = GetField<uint16_t>(record, 1),
              .group = 42,
              .epoch = record[15] == 0xFE ? 6u : 7u,
              .tag = record[3] % 4u,
              .offset = GetField<uint16_t>(record, 4),
              .value = GetField<uint16_t>(record, 6)};
  if (record[8] > 0xF0) frame.value = ~uint64_t{0} - record[9];
  std::vector<uint8_t> payload(frame.PayloadBytes(), record[10]);
  frame.payload_crc = Crc32cOf(payload.data(), payload.size()) ^ (record[11] == 0xFE ? 1u : 0u);
  const FrameHeader header = EncodeFrame(frame);
  std::vector<uint8_t> bytes(header.begin(), header.end());
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

void Run(const uint8_t* data, size_t size) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  const UniqueFd peer(ends[1]);
  UniqueFd memory;
  Operations operations;
  Owner owner;
  Link link(&owner, Fence{.group = 42, .epoch = 7, .source = 0}, 1);
  const bool shared = size > 0 && data[0] % 2 == 0;
  link.Adopt(UniqueFd(ends[0]), shared ? ShmRing::Create(&memory) : nullptr, Link::State::kUp);
  for (const OperationPtr& operation : operations.all()) link.Post(operation);
  std::array<uint8_t, 65'536> waste;
  for (size_t at = 0; at + kRecordBytes <= size && !owner.failed; at += kRecordBytes) {
    const std::vector<uint8_t> said = Speak(data + at);
    if (::send(peer.get(), said.data(), said.size(), MSG_NOSIGNAL | MSG_DONTWAIT) <= 0) break;
    if (link.fd() >= 0) link.OnReadable();
    while (!owner.failed && link.Pump()) {
    }
    while (::recv(peer.get(), waste.data(), waste.size(), MSG_DONTWAIT) > 0) {
    }
    if (data[at + 12] == 0xFE) link.Tick(3, 1.0);
    if (data[at + 13] == 0xFE) link.Expire(std::numeric_limits<int64_t>::max());
  }
  link.Fail(ANNULUS_TRANSPORT_ABORTED, -1, "over");
  for (const OperationPtr& operation : operations.all()) {
    if (operation->done.load() != 1) std::abort();  // forgotten
    if (operation->moved > operation->total) std::abort();
  }
  operations.CheckGuards();
}

}  // namespace
}  // namespace annulus::transport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  annulus::transport::Run(data, size < 4096 ? size : 4096);
  return 0;
}
