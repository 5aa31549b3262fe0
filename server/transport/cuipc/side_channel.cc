// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/side_channel.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "server/transport/host/bytes.h"
#include "server/transport/host/socket.h"

namespace annulus::transport::cuipc {
namespace {

constexpr uint32_t kHelloMagic = 0x48434E41;  // "ANCH"
constexpr size_t kHelloBytes = 40;            // magic, rank, the two nonces
constexpr size_t kNewsBytes = 96;             // type, by descriptor, id, base, bytes, ipc handle

struct Address {
  sockaddr_un un{};
  socklen_t length = 0;
};

Address AddressOf(const HandleInfo& info) {
  const std::string name = SocketName(info) + "-cuipc";
  Address address;
  address.un.sun_family = AF_UNIX;
  std::memcpy(address.un.sun_path + 1, name.data(), name.size());  // abstract: after a zero byte
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

UniqueFd NewSocket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

using Hello = std::array<uint8_t, kHelloBytes>;

Hello EncodeHello(const HandleInfo& caller, const HandleInfo& callee) {
  Hello hello{};
  PutField(hello.data(), 0, kHelloMagic);
  PutField(hello.data(), 4, caller.rank);
  PutField(hello.data(), 8, caller.nonce);
  PutField(hello.data(), 24, callee.nonce);
  return hello;
}

}  // namespace

UniqueFd SideChannel::Listen(const HandleInfo& self, int backlog) {
  UniqueFd fd = NewSocket();
  const Address address = AddressOf(self);
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.un), address.length) ||
      ::listen(fd.get(), backlog) != 0) {
    return UniqueFd();
  }
  return fd;
}

std::unique_ptr<SideChannel> SideChannel::Dial(const HandleInfo& self, const HandleInfo& peer,
                                               std::string* why) {
  UniqueFd fd = NewSocket();
  const Address address = AddressOf(peer);
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.un), address.length)) {
    *why = std::strerror(errno);
    return nullptr;
  }
  UniqueFd memory;
  std::unique_ptr<SlotTable> slots = SlotTable::Create(&memory);
  const Hello hello = EncodeHello(self, peer);
  if (slots == nullptr || !SendWithFd(fd.get(), hello.data(), hello.size(), memory.get())) {
    *why = "no shared memory for the slots";
    return nullptr;
  }
  return std::unique_ptr<SideChannel>(new SideChannel(std::move(fd), std::move(slots)));
}

std::unique_ptr<SideChannel> SideChannel::Admit(Caller* caller, const HandleInfo& self,
                                                const std::vector<HandleInfo>& handles,
                                                int32_t* rank, std::string* why) {
  Hello got{};
  UniqueFd memory;
  const ssize_t length = ReceiveWithFd(caller->fd.get(), got.data(), got.size(), &memory);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return nullptr;
  *why = "a stranger";
  if (length != static_cast<ssize_t>(got.size()) || !SameUser(caller->fd.get())) return nullptr;
  const auto claimed = GetField<int32_t>(got.data(), 4);
  if (claimed <= self.rank || claimed >= self.size) return nullptr;
  const HandleInfo& claims_to_be = handles[static_cast<size_t>(claimed)];
  if (IsAbsent(claims_to_be) || got != EncodeHello(claims_to_be, self)) return nullptr;
  std::unique_ptr<SlotTable> slots = SlotTable::Adopt(memory);
  if (slots == nullptr) return nullptr;
  why->clear();
  *rank = claimed;
  return std::unique_ptr<SideChannel>(new SideChannel(std::move(caller->fd), std::move(slots)));
}

SideChannel::SideChannel(UniqueFd fd, std::unique_ptr<SlotTable> slots)
    : fd_(std::move(fd)), slots_(std::move(slots)) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return;
  own_process_ = peer.pid == ::getpid();
  if (!own_process_ && peer.pid > 0) {
    process_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
  }
}

bool SideChannel::peer_ended() const {
  pollfd event{process_.get(), POLLIN, 0};
  return process_ && ::poll(&event, 1, 0) == 1;
}

bool SideChannel::Tell(NewsType type, const SharedMemory& memory) {
  std::array<uint8_t, kNewsBytes> bytes{};
  PutField(bytes.data(), 0, static_cast<uint32_t>(type));
  PutField(bytes.data(), 4, uint32_t{memory.descriptor ? 1u : 0u});
  PutField(bytes.data(), 8, memory.allocation.id);
  PutField(bytes.data(), 16, memory.allocation.base);
  PutField(bytes.data(), 24, uint64_t{memory.allocation.bytes});
  PutField(bytes.data(), 32, memory.ipc);
  if (!fd_ || SendWithFd(fd_.get(), bytes.data(), bytes.size(), memory.descriptor.get()))
    return true;
  return errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ETOOMANYREFS;
}

News SideChannel::Next() {
  News news;
  std::array<uint8_t, kNewsBytes> bytes{};
  if (!fd_) return news;
  const ssize_t got = ReceiveWithFd(fd_.get(), bytes.data(), bytes.size(), &news.memory.descriptor);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return news;
  const auto type = GetField<uint32_t>(bytes.data(), 0);
  const bool known = got == static_cast<ssize_t>(bytes.size()) && type >= 1 && type <= 3;
  news.type = known ? static_cast<NewsType>(type) : NewsType::kEnd;
  news.memory.allocation = {true, GetField<uint64_t>(bytes.data(), 8),
                            GetField<uint64_t>(bytes.data(), 16),
                            GetField<uint64_t>(bytes.data(), 24)};
  news.memory.ipc = GetField<std::array<uint8_t, 64>>(bytes.data(), 32);
  return news;
}

void SideChannel::End() { ::shutdown(fd_.get(), SHUT_WR); }

}  // namespace annulus::transport::cuipc
