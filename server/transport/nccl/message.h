// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport::nccl {

// Version of the messages below; members of one communicator must agree on it.
inline constexpr int kWireVersion = 1;

// What the members of a communicator and their leader tell each other. Joining goes hello, id,
// ready, warm, warmed, up; leaving goes leave, end, ended, over.
enum class MessageType : uint8_t {
  // A member to its leader.
  kHello = 1,     // text: Facts, encoded
  kReady = 2,     // the communicator is initialised
  kWarmed = 3,    // both edges carried a checked payload
  kReport = 4,    // operations: one batch, posted together
  kWithdraw = 5,  // number: an operation whose deadline has passed
  kLeave = 6,     // this member closes
  kEnded = 7,     // nothing is in flight here any more; the member's last word
  // A leader to a member.
  kId = 32,         // text: the unique id
  kWarm = 33,       // all are initialised
  kUp = 34,         // all are warm
  kGo = 35,         // operations: id and pieces; number: pieces of each in one group call
  kMismatch = 36,   // operations: one id; number: the bytes that the other side named
  kWithdrawn = 37,  // number: the operation, which will not move
  kEnd = 38,        // number: the member that leaves; nothing new starts
  kOver = 39,       // all have ended; the leader's last word
};

// One operation in kReport, kGo or kMismatch.
struct OperationNote {
  uint64_t id = 0;  // the member's own number
  bool is_send = false;
  int32_t peer = 0;  // member index
  uint64_t tag = 0;
  // kReport: bytes of each segment. kGo: bytes of each piece. Only lengths above zero.
  std::vector<uint64_t> lengths;

  bool operator==(const OperationNote&) const = default;
};

struct Message {
  MessageType type = MessageType::kHello;
  uint64_t number = 0;
  std::string text;
  std::vector<OperationNote> operations;

  bool operator==(const Message&) const = default;
};

inline bool ForLeader(MessageType type) { return type < MessageType::kId; }
// Nothing follows it in its direction.
inline bool LastWord(MessageType type) {
  return type == MessageType::kEnded || type == MessageType::kOver;
}

// A message is at most this long on the wire.
inline constexpr size_t kMessageBytesMax = size_t{64} << 20;

std::string EncodeMessage(const Message& message);
// Nothing for bytes that are no message.
std::optional<Message> DecodeMessage(std::string_view bytes);

}  // namespace annulus::transport::nccl
