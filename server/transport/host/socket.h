// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/transport/host/handle.h"
#include "server/transport/host/unique_fd.h"

// Sockets of the host transport. Everything is non-blocking and close-on-exec; a UniqueFd that
// holds nothing means failure, with errno set.
namespace annulus::transport {

// Reads a numeric address into `info` (ipv6, address). False for names and for wildcard addresses,
// which no peer could dial.
bool ParseAddress(std::string_view text, HandleInfo* info);

// Listens on the abstract UNIX socket that `info` names; it lives as long as the descriptor.
UniqueFd ListenUnix(const HandleInfo& info, int backlog);

// Listens on the address of `info` with a port of the kernel's choice, written to info->port.
UniqueFd ListenTcp(HandleInfo* info, int backlog);

// Starts to connect. Over TCP the connection may still be in progress on return.
UniqueFd DialUnix(const HandleInfo& peer);
UniqueFd DialTcp(const HandleInfo& peer, int64_t timeout_ms);

// For an accepted or dialled TCP connection: no delay, and a peer that acknowledges nothing for
// `timeout_ms` is dropped.
void TuneTcp(int fd, int64_t timeout_ms);

// True when the process at the other end of a UNIX socket runs under our own user id.
bool SameUser(int fd);

// Sends all of `bytes` (small, on a fresh socket) with at most one descriptor beside them.
bool SendWithFd(int fd, const void* data, size_t bytes, int passed_fd);

// recv that also takes a descriptor, into `passed`. Result as recv.
ssize_t ReceiveWithFd(int fd, void* data, size_t bytes, UniqueFd* passed);

}  // namespace annulus::transport
