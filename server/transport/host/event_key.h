// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace annulus::transport {

// What an epoll event is about.
enum class EventKind : uint32_t { kWake, kUnixListener, kTcpListener, kCaller, kLink };

constexpr uint64_t EventKey(EventKind kind, uint32_t index) {
  return (static_cast<uint64_t>(kind) << 32) | index;
}
constexpr EventKind KindOf(uint64_t key) { return static_cast<EventKind>(key >> 32); }
constexpr uint32_t IndexOf(uint64_t key) { return static_cast<uint32_t>(key); }

}  // namespace annulus::transport
