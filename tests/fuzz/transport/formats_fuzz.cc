// SPDX-License-Identifier: Apache-2.0
// The parsers of bytes from outside: handles, frame headers, greetings. Nothing may be read past
// the input, and whatever is accepted must encode to the bytes it came from.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "server/transport/host/bytes.h"
#include "server/transport/host/crc32c.h"
#include "server/transport/host/frame.h"
#include "server/transport/host/handle.h"
#include "server/transport/host/reception.h"

namespace annulus::transport {
namespace {

void Require(bool held) {
  if (!held) std::abort();
}

// The input padded or cut to what the parser reads.
template <size_t kBytes>
std::array<uint8_t, kBytes> Fixed(const uint8_t* data, size_t size) {
  std::array<uint8_t, kBytes> bytes{};
  if (size > 0) std::memcpy(bytes.data(), data, std::min(size, kBytes));
  return bytes;
}

void FuzzFrame(FrameHeader bytes, bool seal) {
  if (seal) PutField(bytes.data(), 60, Crc32cOf(bytes.data(), 60));
  Frame frame;
  if (DecodeFrame(bytes, &frame) != FrameError::kNone) return;
  Require(EncodeFrame(frame) == bytes);
  Require(frame.length <= kChunkBytes);
}

void FuzzHandle(const uint8_t* data, size_t size, bool seal) {
  annulusTransportHandle handle{};
  if (size > 0) std::memcpy(handle.bytes, data, std::min(size, sizeof(handle.bytes)));
  if (seal) PutField(handle.bytes, 124, Crc32cOf(handle.bytes, 124));
  const auto info = DecodeHandle(handle);
  if (!info.has_value()) return;
  Require(info->rank >= 0 && info->rank < info->size);
  Require(DecodeHandle(EncodeHandle(*info)) == info);
}

void FuzzGreeting(std::array<uint8_t, kGreetingBytes> bytes, bool seal) {
  static const std::vector<HandleInfo> handles = [] {
    std::vector<HandleInfo> made(2);
    for (int32_t rank = 0; rank < 2; ++rank) {
      made[static_cast<size_t>(rank)].rank = rank;
      made[static_cast<size_t>(rank)].size = 2;
      made[static_cast<size_t>(rank)].nonce.fill(static_cast<uint8_t>(0xC0 + rank));
    }
    return made;
  }();
  if (seal) {
    PutField(bytes.data(), 56, Crc32cOf(bytes.data() + kFrameBytes, kHelloBytes));
    PutField(bytes.data(), 60, Crc32cOf(bytes.data(), 60));
  }
  const Verdict verdict = JudgeGreeting(bytes, handles, 0, true);
  Require((verdict.rank == 1) == verdict.refusal.empty());
  if (verdict.rank != 1) return;
  // Nobody gets in without both secrets.
  Require(
      std::equal(handles[1].nonce.begin(), handles[1].nonce.end(), bytes.begin() + kFrameBytes));
  Require(std::equal(handles[0].nonce.begin(), handles[0].nonce.end(),
                     bytes.begin() + kFrameBytes + 16));
}

}  // namespace
}  // namespace annulus::transport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace annulus::transport;  // NOLINT(google-build-using-namespace)
  for (const bool seal : {false, true}) {
    FuzzFrame(Fixed<kFrameBytes>(data, size), seal);
    FuzzHandle(data, size, seal);
    FuzzGreeting(Fixed<kGreetingBytes>(data, size), seal);
  }
  return 0;
}
