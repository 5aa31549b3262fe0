// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/handle.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "server/transport/host/bytes.h"
#include "server/transport/host/crc32c.h"

namespace annulus::transport {
namespace {

constexpr uint32_t kHandleMagic = 0x31484E41;  // "ANH1"
constexpr uint16_t kHandleVersion = 1;
constexpr size_t kCrcAt = ANNULUS_TRANSPORT_HANDLE_BYTES - 4;

// FNV-1a; names are told apart by it, nothing is kept secret by it.
uint64_t Hash(std::string_view text, uint64_t hash = 0xcbf29ce484222325ull) {
  for (const char c : text) {
    hash ^= static_cast<uint8_t>(c);
    hash *= 0x100000001b3ull;
  }
  return hash;
}

}  // namespace

annulusTransportHandle EncodeHandle(const HandleInfo& info) {
  annulusTransportHandle handle{};
  uint8_t* at = handle.bytes;
  PutField(at, 0, kHandleMagic);
  PutField(at, 4, kHandleVersion);
  at[6] = info.ipv6 ? 6 : 4;
  PutField(at, 8, info.rank);
  PutField(at, 12, info.size);
  PutField(at, 16, info.epoch);
  PutField(at, 24, info.group);
  PutField(at, 32, info.host);
  PutField(at, 40, info.nonce);
  PutField(at, 56, info.socket_name);
  PutField(at, 72, info.address);
  PutField(at, 88, info.port);
  PutField(at, kCrcAt, Crc32cOf(at, kCrcAt));
  return handle;
}

std::optional<HandleInfo> DecodeHandle(const annulusTransportHandle& handle) {
  const uint8_t* at = handle.bytes;
  if (GetField<uint32_t>(at, 0) != kHandleMagic || GetField<uint16_t>(at, 4) != kHandleVersion)
    return std::nullopt;
  if (GetField<uint32_t>(at, kCrcAt) != Crc32cOf(at, kCrcAt)) return std::nullopt;
  if (at[6] != 4 && at[6] != 6) return std::nullopt;
  HandleInfo info;
  info.ipv6 = at[6] == 6;
  info.rank = GetField<int32_t>(at, 8);
  info.size = GetField<int32_t>(at, 12);
  info.epoch = GetField<uint64_t>(at, 16);
  info.group = GetField<uint64_t>(at, 24);
  info.host = GetField<uint64_t>(at, 32);
  info.nonce = GetField<std::array<uint8_t, 16>>(at, 40);
  info.socket_name = GetField<std::array<uint8_t, 16>>(at, 56);
  info.address = GetField<std::array<uint8_t, 16>>(at, 72);
  info.port = GetField<uint16_t>(at, 88);
  if (info.size < 1 || info.rank < 0 || info.rank >= info.size || info.port == 0)
    return std::nullopt;
  return info;
}

bool IsNoPeer(const annulusTransportHandle& handle) {
  return std::all_of(std::begin(handle.bytes), std::end(handle.bytes),
                     [](uint8_t byte) { return byte == 0; });
}

uint64_t HashGroup(std::string_view group) { return Hash(group); }

uint64_t HashHost(std::string_view host_id) {
  uint64_t hash = Hash(host_id);
  std::string boot;
  if (std::ifstream file("/proc/sys/kernel/random/boot_id"); file >> boot) hash = Hash(boot, hash);
  struct stat network {};
  if (stat("/proc/self/ns/net", &network) == 0) hash = Hash(std::to_string(network.st_ino), hash);
  return hash;
}

std::string SocketName(const HandleInfo& info) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string name = "annulus-";
  for (const uint8_t byte : info.socket_name) {
    name += kDigits[byte >> 4];
    name += kDigits[byte & 15];
  }
  return name;
}

}  // namespace annulus::transport
