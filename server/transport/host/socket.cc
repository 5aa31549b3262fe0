// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace annulus::transport {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address UnixAddress(const HandleInfo& info) {
  Address address;
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  const std::string name = SocketName(info);
  std::memcpy(un.sun_path + 1, name.data(), name.size());  // a leading zero: the abstract namespace
  std::memcpy(&address.storage, &un, sizeof(un));
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

Address TcpAddress(const HandleInfo& info) {
  Address address;
  if (info.ipv6) {
    sockaddr_in6 in6{};
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(info.port);
    std::memcpy(&in6.sin6_addr, info.address.data(), 16);
    std::memcpy(&address.storage, &in6, sizeof(in6));
    address.length = sizeof(in6);
  } else {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(info.port);
    std::memcpy(&in.sin_addr, info.address.data(), 4);
    std::memcpy(&address.storage, &in, sizeof(in));
    address.length = sizeof(in);
  }
  return address;
}

UniqueFd NewSocket(int family) {
  return UniqueFd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

UniqueFd Listen(int family, const Address& address, int backlog) {
  UniqueFd fd = NewSocket(family);
  if (!fd || ::bind(fd.get(), address.get(), address.length) != 0 ||
      ::listen(fd.get(), backlog) != 0) {
    return UniqueFd();
  }
  return fd;
}

}  // namespace

bool ParseAddress(std::string_view text, HandleInfo* info) {
  const std::string name(text);
  info->address.fill(0);
  info->ipv6 = false;
  if (::inet_pton(AF_INET, name.c_str(), info->address.data()) != 1) {
    info->ipv6 = true;
    if (::inet_pton(AF_INET6, name.c_str(), info->address.data()) != 1) return false;
  }
  return std::any_of(info->address.begin(), info->address.end(), [](uint8_t b) { return b != 0; });
}

UniqueFd ListenUnix(const HandleInfo& info, int backlog) {
  return Listen(AF_UNIX, UnixAddress(info), backlog);
}

UniqueFd ListenTcp(HandleInfo* info, int backlog) {
  info->port = 0;
  UniqueFd fd = Listen(info->ipv6 ? AF_INET6 : AF_INET, TcpAddress(*info), backlog);
  if (!fd) return fd;
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) return UniqueFd();
  info->port = ntohs(info->ipv6 ? reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port
                                : reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
  return fd;
}

UniqueFd DialUnix(const HandleInfo& peer) {
  UniqueFd fd = NewSocket(AF_UNIX);
  const Address address = UnixAddress(peer);
  if (fd && ::connect(fd.get(), address.get(), address.length) != 0) return UniqueFd();
  return fd;
}

UniqueFd DialTcp(const HandleInfo& peer, int64_t timeout_ms) {
  UniqueFd fd = NewSocket(peer.ipv6 ? AF_INET6 : AF_INET);
  if (!fd) return fd;
  TuneTcp(fd.get(), timeout_ms);
  const Address address = TcpAddress(peer);
  if (::connect(fd.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    return UniqueFd();
  }
  return fd;
}

void TuneTcp(int fd, int64_t timeout_ms) {
  const int on = 1;
  const auto timeout = static_cast<unsigned>(timeout_ms);
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

bool SameUser(int fd) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == ::geteuid();
}

bool SendWithFd(int fd, const void* data, size_t bytes, int passed_fd) {
  iovec piece{const_cast<void*>(data), bytes};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (passed_fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &passed_fd, sizeof(int));
  }
  return ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(bytes);
}

ssize_t ReceiveWithFd(int fd, void* data, size_t bytes, UniqueFd* passed) {
  iovec piece{data, bytes};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  // Room for one descriptor only: the kernel closes any beyond that.
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int received = -1;
    std::memcpy(&received, CMSG_DATA(header), sizeof(int));
    *passed = UniqueFd(received);
  }
  return got;
}

}  // namespace annulus::transport
