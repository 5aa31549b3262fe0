// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// What the 128 bytes of a host transport's handle say. It is a join secret: whoever knows the
// nonces of both ends may open a link between them, so it travels with the control plane only and
// is never logged.
struct HandleInfo {
  int32_t rank = 0;
  int32_t size = 0;
  uint64_t group = 0;  // HashGroup
  uint64_t epoch = 0;
  uint64_t host = 0;  // HashHost: equal means shared memory, otherwise TCP
  std::array<uint8_t, 16> nonce{};
  std::array<uint8_t, 16> socket_name{};  // random part of the abstract UNIX socket's name
  bool ipv6 = false;
  std::array<uint8_t, 16> address{};  // network order; the first 4 bytes for IPv4
  uint16_t port = 0;

  bool operator==(const HandleInfo&) const = default;
};

annulusTransportHandle EncodeHandle(const HandleInfo& info);

// A handle of zeros stands for a rank that is no peer; among those of a group it is a HandleInfo of
// size 0, which no handle decodes to.
bool IsNoPeer(const annulusTransportHandle& handle);
inline bool IsAbsent(const HandleInfo& info) { return info.size == 0; }

// Nothing where the bytes are no handle of this transport (magic, version, checksum, impossible
// fields).
std::optional<HandleInfo> DecodeHandle(const annulusTransportHandle& handle);

uint64_t HashGroup(std::string_view group);

// Ranks share memory when they name the same host id, run under the same boot of one kernel and see
// the same abstract sockets (network namespace).
uint64_t HashHost(std::string_view host_id);

// The abstract socket's name, without the leading zero byte.
std::string SocketName(const HandleInfo& info);

}  // namespace annulus::transport
