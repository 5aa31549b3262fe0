// SPDX-License-Identifier: Apache-2.0
#include "client/src/region_lease.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/region_protocol.h"
#include "server/base/status_macros.h"

namespace annulus::client {
namespace {

constexpr uint32_t kAdd = 1;
constexpr uint32_t kRemove = 2;
constexpr uint32_t kAddDevice = 3;
constexpr int64_t kAliveCheckMs = 50;

// How long an exchange may last and who says that it is in vain.
struct Patience {
  absl::Time deadline;
  const std::function<bool()>& alive;
};

// Waits until the socket is ready; false at the deadline, or when the session has ended.
bool WaitFor(int fd, short events, const Patience& patience) {
  while (true) {
    const int64_t left_ms = absl::ToInt64Milliseconds(patience.deadline - absl::Now());
    if (left_ms <= 0 || !patience.alive()) return false;
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&entry, 1, static_cast<int>(std::min(left_ms, kAliveCheckMs)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

// Sends the whole message; the descriptor, if any, travels with its first byte.
bool SendMessage(int fd, std::string& bytes, int passed_fd, const Patience& patience) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    if (!WaitFor(fd, POLLOUT, patience)) return false;
    iovec part{.iov_base = bytes.data() + sent, .iov_len = bytes.size() - sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (sent == 0 && passed_fd >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &passed_fd, sizeof(int));
    }
    const ssize_t count = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) sent += static_cast<size_t>(count);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
  }
  return true;
}

std::string Message(uint32_t op, uint64_t id, uint64_t generation, uint64_t bytes) {
  RegionRequest request;
  request.op = op;
  request.region_id = id;
  request.generation = generation;
  request.bytes = bytes;
  return std::string(reinterpret_cast<const char*>(&request), sizeof(request));
}

bool ReceiveReply(int fd, RegionReply* reply, const Patience& patience) {
  char* bytes = reinterpret_cast<char*>(reply);
  size_t received = 0;
  while (received < sizeof(*reply)) {
    if (!WaitFor(fd, POLLIN, patience)) return false;
    const ssize_t count = recv(fd, bytes + received, sizeof(*reply) - received, MSG_DONTWAIT);
    if (count == 0) return false;
    if (count > 0) received += static_cast<size_t>(count);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<int> ConnectRegionSocket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::NotFoundError("the worker names no region socket");
  }
  const bool abstract_name = path[0] == '@';
  std::memcpy(address.sun_path, path.data(), path.size());
  if (abstract_name) address.sun_path[0] = '\0';
  const size_t length = offsetof(sockaddr_un, sun_path) + path.size() + !abstract_name;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::ResourceExhaustedError("no socket to be had");
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(length)) ==
      0) {
    return fd;
  }
  const std::string reason = std::strerror(errno);
  close(fd);
  return absl::NotFoundError(
      absl::StrCat("the worker's region socket is not to be reached from here: ", reason));
}

RegionLeases::RegionLeases(std::string socket_path, std::string session_id,
                           std::function<bool()> alive)
    : socket_path_(std::move(socket_path)),
      session_id_(std::move(session_id)),
      alive_(std::move(alive)) {}

RegionLeases::~RegionLeases() {
  absl::MutexLock lock(&mutex_);
  if (socket_ >= 0) close(socket_);
}

void RegionLeases::DropLocked() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
  leased_.clear();
}

absl::Status RegionLeases::ConnectLocked() {
  if (socket_ >= 0) return absl::OkStatus();
  ANNULUS_ASSIGN_OR_RETURN(socket_, ConnectRegionSocket(socket_path_));
  return absl::OkStatus();
}

absl::Status RegionLeases::ExchangeLocked(std::string message, int fd, absl::Time deadline) {
  std::memcpy(message.data() + offsetof(RegionRequest, session_id), session_id_.data(),
              std::min(session_id_.size(), sizeof(RegionRequest::session_id)));
  RegionReply reply;
  const Patience patience{deadline, alive_};
  if (!SendMessage(socket_, message, fd, patience) || !ReceiveReply(socket_, &reply, patience)) {
    DropLocked();
    return absl::UnavailableError("the worker does not answer on its region socket");
  }
  if (reply.magic != RegionReply{}.magic) {
    DropLocked();
    return absl::NotFoundError("the region socket speaks another protocol");
  }
  if (reply.code == 0) return absl::OkStatus();
  reply.message[sizeof(reply.message) - 1] = '\0';
  return absl::Status(static_cast<absl::StatusCode>(reply.code),
                      absl::StrCat("the worker refuses the region: ", reply.message));
}

absl::Status RegionLeases::Ensure(const Region& region, absl::Time deadline) {
  const Region::Identity identity = region.identity();
  absl::MutexLock lock(&mutex_);
  const auto held = leased_.find(identity.id);
  if (held != leased_.end() && held->second == identity.generation) return absl::OkStatus();
  ANNULUS_RETURN_IF_ERROR(ConnectLocked());
  const RegionDeviceMemory* device = region.device_memory();
  std::string message = Message(device != nullptr ? kAddDevice : kAdd, identity.id,
                                identity.generation, region.size());
  if (device != nullptr) message.append(reinterpret_cast<const char*>(device), sizeof(*device));
  ANNULUS_RETURN_IF_ERROR(ExchangeLocked(std::move(message), identity.fd, deadline));
  leased_[identity.id] = identity.generation;
  return absl::OkStatus();
}

void RegionLeases::Remove(uint64_t region_id) {
  absl::MutexLock lock(&mutex_);
  const auto held = leased_.find(region_id);
  if (held == leased_.end()) return;
  const uint64_t generation = held->second;
  leased_.erase(held);
  const absl::Status ignored = ExchangeLocked(Message(kRemove, region_id, generation, 0), -1,
                                              absl::Now() + absl::Milliseconds(250));
  (void)ignored;
}

}  // namespace annulus::client
