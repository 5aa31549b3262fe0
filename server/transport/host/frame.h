// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

// The frames that ranks exchange over the socket of a link, UNIX or TCP. A frame is a header of 64
// little-endian bytes, then, for some types, `length` bytes of payload:
//
//   0 magic "ANF1"   4 version  5 type  6 zero(2)   8 source rank   12 length
//   16 group hash   24 epoch   32 tag   40 offset   48 value   56 payload CRC32C   60 header CRC32C
//
// What tag, offset and value mean depends on the type and is said at each enumerator. Every frame
// carries the fence (group, epoch, source); a frame of any other is not for this link and is never
// acted upon.
namespace annulus::transport {

inline constexpr size_t kFrameBytes = 64;
inline constexpr size_t kChunkBytes = size_t{256} << 10;  // the most one data frame carries
inline constexpr size_t kTextBytes = 512;                 // the longest reason that travels
inline constexpr size_t kHelloBytes = 64;

enum class FrameType : uint8_t {
  kHello = 1,     // payload: HelloBody; value: size of the group; opens a link
  kWelcome = 2,   // answers kHello: the link is up
  kRefuse = 3,    // answers kHello, payload: the reason in words; the connection ends
  kReady = 4,     // the receive of `tag` is posted and holds `value` bytes
  kData = 5,      // payload: bytes [offset, offset + length) of `tag`
  kSlot = 6,      // the same bytes lie in slot `value` of the shared ring; no payload follows
  kCredit = 7,    // `value` slots of the shared ring are free again
  kMismatch = 8,  // the send of `tag` holds `value` bytes, not what the receive holds
  kBeat = 9,      // nothing but a sign of life
  kFault = 10,    // value: status | (suspect rank + 1) << 32; payload: the reason in words
  kBye = 11,      // the sender closes and has nothing outstanding
};

struct Frame {
  FrameType type = FrameType::kBeat;
  int32_t source = 0;
  uint32_t length = 0;
  uint64_t group = 0;
  uint64_t epoch = 0;
  uint64_t tag = 0;
  uint64_t offset = 0;
  uint64_t value = 0;
  uint32_t payload_crc = 0;

  bool operator==(const Frame&) const = default;
  // Bytes that follow the header on the socket.
  size_t PayloadBytes() const { return type == FrameType::kSlot ? 0 : length; }
};

using FrameHeader = std::array<uint8_t, kFrameBytes>;

enum class FrameError {
  kNone,
  kMagic,
  kVersion,
  kType,
  kLength,    // longer than its type allows, or of another length than its type has
  kChecksum,  // of the header
  kReserved,
};

// What a link accepts; a frame with another fence is refused.
struct Fence {
  uint64_t group = 0;
  uint64_t epoch = 0;
  int32_t source = 0;
};

FrameHeader EncodeFrame(const Frame& frame);

// Reads a header. Never reads past `bytes`, never allocates; `frame` is written only on kNone.
FrameError DecodeFrame(std::span<const uint8_t, kFrameBytes> bytes, Frame* frame);

bool Admits(const Fence& fence, const Frame& frame);

std::string_view FrameErrorName(FrameError error);

// Payload of kHello: who calls and proof that the handles came from the coordinator.
struct HelloBody {
  std::array<uint8_t, 16> caller_nonce{};
  std::array<uint8_t, 16> callee_nonce{};
  uint32_t slot_bytes = 0;  // geometry of the shared ring handed over; 0 over TCP
  uint32_t slot_count = 0;

  bool operator==(const HelloBody&) const = default;
};

std::array<uint8_t, kHelloBytes> EncodeHello(const HelloBody& body);
HelloBody DecodeHello(std::span<const uint8_t, kHelloBytes> bytes);

}  // namespace annulus::transport
