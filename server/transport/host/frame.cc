// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/frame.h"

#include "server/transport/host/bytes.h"
#include "server/transport/host/crc32c.h"

namespace annulus::transport {
namespace {

constexpr uint32_t kFrameMagic = 0x31464E41;  // "ANF1"
constexpr uint8_t kFrameVersion = 1;
constexpr size_t kHeaderCrcAt = 60;

bool LengthAllowed(FrameType type, uint32_t length) {
  switch (type) {
    case FrameType::kHello:
      return length == kHelloBytes;
    case FrameType::kData:
      return length <= kChunkBytes;
    case FrameType::kSlot:
      return length > 0 && length <= kChunkBytes;
    case FrameType::kRefuse:
    case FrameType::kFault:
      return length <= kTextBytes;
    default:
      return length == 0;
  }
}

}  // namespace

FrameHeader EncodeFrame(const Frame& frame) {
  FrameHeader bytes{};
  PutField(bytes.data(), 0, kFrameMagic);
  bytes[4] = kFrameVersion;
  bytes[5] = static_cast<uint8_t>(frame.type);
  PutField(bytes.data(), 8, frame.source);
  PutField(bytes.data(), 12, frame.length);
  PutField(bytes.data(), 16, frame.group);
  PutField(bytes.data(), 24, frame.epoch);
  PutField(bytes.data(), 32, frame.tag);
  PutField(bytes.data(), 40, frame.offset);
  PutField(bytes.data(), 48, frame.value);
  PutField(bytes.data(), 56, frame.payload_crc);
  PutField(bytes.data(), kHeaderCrcAt, Crc32cOf(bytes.data(), kHeaderCrcAt));
  return bytes;
}

FrameError DecodeFrame(std::span<const uint8_t, kFrameBytes> bytes, Frame* frame) {
  const uint8_t* at = bytes.data();
  if (GetField<uint32_t>(at, 0) != kFrameMagic) return FrameError::kMagic;
  if (at[4] != kFrameVersion) return FrameError::kVersion;
  if (GetField<uint32_t>(at, kHeaderCrcAt) != Crc32cOf(at, kHeaderCrcAt))
    return FrameError::kChecksum;
  if (GetField<uint16_t>(at, 6) != 0) return FrameError::kReserved;
  if (at[5] < static_cast<uint8_t>(FrameType::kHello) ||
      at[5] > static_cast<uint8_t>(FrameType::kBye)) {
    return FrameError::kType;
  }
  const auto type = static_cast<FrameType>(at[5]);
  const auto length = GetField<uint32_t>(at, 12);
  if (!LengthAllowed(type, length)) return FrameError::kLength;
  frame->type = type;
  frame->source = GetField<int32_t>(at, 8);
  frame->length = length;
  frame->group = GetField<uint64_t>(at, 16);
  frame->epoch = GetField<uint64_t>(at, 24);
  frame->tag = GetField<uint64_t>(at, 32);
  frame->offset = GetField<uint64_t>(at, 40);
  frame->value = GetField<uint64_t>(at, 48);
  frame->payload_crc = GetField<uint32_t>(at, 56);
  return FrameError::kNone;
}

bool Admits(const Fence& fence, const Frame& frame) {
  return frame.group == fence.group && frame.epoch == fence.epoch && frame.source == fence.source;
}

std::string_view FrameErrorName(FrameError error) {
  switch (error) {
    case FrameError::kNone:
      return "no error";
    case FrameError::kMagic:
      return "not a frame (magic)";
    case FrameError::kVersion:
      return "frame of another version";
    case FrameError::kType:
      return "unknown frame type";
    case FrameError::kLength:
      return "frame length not allowed for its type";
    case FrameError::kChecksum:
      return "frame header checksum mismatch";
    case FrameError::kReserved:
      return "reserved frame bits set";
  }
  return "unknown error";
}

std::array<uint8_t, kHelloBytes> EncodeHello(const HelloBody& body) {
  std::array<uint8_t, kHelloBytes> bytes{};
  PutField(bytes.data(), 0, body.caller_nonce);
  PutField(bytes.data(), 16, body.callee_nonce);
  PutField(bytes.data(), 32, body.slot_bytes);
  PutField(bytes.data(), 36, body.slot_count);
  return bytes;
}

HelloBody DecodeHello(std::span<const uint8_t, kHelloBytes> bytes) {
  HelloBody body;
  body.caller_nonce = GetField<std::array<uint8_t, 16>>(bytes.data(), 0);
  body.callee_nonce = GetField<std::array<uint8_t, 16>>(bytes.data(), 16);
  body.slot_bytes = GetField<uint32_t>(bytes.data(), 32);
  body.slot_count = GetField<uint32_t>(bytes.data(), 36);
  return body;
}

}  // namespace annulus::transport
