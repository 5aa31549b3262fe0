// SPDX-License-Identifier: Apache-2.0
#include "server/worker/region_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/region_protocol.h"
#include "server/base/status_macros.h"
#include "server/worker/unix_listener.h"

namespace annulus::worker {
namespace {

constexpr uint32_t kAdd = 1;
constexpr uint32_t kRemove = 2;
constexpr uint32_t kAddDevice = 3;
// More than a peer may send with one message, so that the surplus is seen (and closed) here.
constexpr size_t kMaxDescriptors = 8;
constexpr int kMaxReadsPerTurn = 32;
constexpr int kAcceptPauseMs = 100;

RegionReply MakeReply(const absl::Status& status) {
  RegionReply reply;
  reply.code = static_cast<uint32_t>(status.code());
  status.message().copy(reply.message, sizeof(reply.message) - 1);
  return reply;
}

// False when the peer does not take it: gone, or not reading its replies.
bool SendReply(int fd, const absl::Status& status) {
  const RegionReply reply = MakeReply(status);
  return send(fd, &reply, sizeof(reply), MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(sizeof(reply));
}

absl::Status CheckPeer(int fd, uid_t allowed) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    return absl::ErrnoToStatus(errno, "SO_PEERCRED");
  }
  if (peer.uid != allowed) {
    return absl::PermissionDeniedError(
        absl::StrCat("regions are taken from user ", allowed, " only, got user ", peer.uid));
  }
  return absl::OkStatus();
}

std::vector<UniqueFd> TakeDescriptors(const msghdr& message) {
  std::vector<UniqueFd> fds;
  for (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(const_cast<msghdr*>(&message), const_cast<cmsghdr*>(header))) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  return fds;
}

// Session and region -> the connection that leased it last: a client that comes back adds its
// regions anew, with a higher generation, before the end of its old connection is seen.
using Owners = std::map<std::pair<std::string, uint64_t>, uint64_t>;

// One client: bytes of a request that is not whole yet, its descriptor, and what it leased.
class Connection {
 public:
  Connection(uint64_t id, UniqueFd fd, Engine* engine, Owners* owners, size_t max_regions)
      : id_(id), fd_(std::move(fd)), engine_(engine), owners_(owners), max_regions_(max_regions) {}
  Connection(Connection&&) = default;
  Connection& operator=(Connection&&) = default;

  int fd() const { return fd_.get(); }

  // Reads what is there and answers each whole request, a few at most: other clients wait
  // meanwhile. False: the connection is over.
  bool Serve() {
    for (int reads = 0; reads < kMaxReadsPerTurn; ++reads) {
      const ssize_t received = Receive();
      if (received < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
      if (received == 0) return false;
      filled_ += static_cast<size_t>(received);
      if (filled_ < WantedBytes()) continue;
      RegionRequest request;
      std::memcpy(&request, buffer_.data(), sizeof(request));
      filled_ = 0;
      const bool framed =
          request.magic == RegionRequest().magic && request.version == RegionRequest().version;
      const absl::Status status = Handle(request);
      descriptors_.clear();
      // Nothing is known of where the next request of another version would begin.
      if (!SendReply(fd(), status) || !framed) return false;
    }
    return true;
  }

  void ReleaseRegions() {
    for (const auto& region : regions_) {
      const auto owner = owners_->find(region);
      if (owner == owners_->end() || owner->second != id_) continue;
      owners_->erase(owner);
      // NOT_FOUND where the session went first: what was to be done is done.
      engine_->RemoveRegion(region.first, region.second).IgnoreError();
    }
    regions_.clear();
  }

 private:
  // What the request that has begun to arrive takes, as far as can be told.
  size_t WantedBytes() const {
    RegionRequest request;
    if (filled_ < sizeof(request)) return sizeof(request);
    std::memcpy(&request, buffer_.data(), sizeof(request));
    const bool more = request.magic == RegionRequest().magic &&
                      request.version == RegionRequest().version && request.op == kAddDevice;
    return more ? sizeof(request) + sizeof(RegionDeviceMemory) : sizeof(request);
  }

  ssize_t Receive() {
    iovec part{buffer_.data() + filled_, WantedBytes() - filled_};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control;
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t received = recvmsg(fd(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (received <= 0) return received;
    for (UniqueFd& fd : TakeDescriptors(message)) {
      if (descriptors_.size() < kMaxDescriptors) descriptors_.push_back(std::move(fd));
    }
    return received;
  }

  absl::Status Handle(const RegionRequest& request) {
    if (request.magic != RegionRequest().magic) {
      return absl::InvalidArgumentError("not a region request: wrong magic number");
    }
    if (request.version != RegionRequest().version) {
      return absl::UnimplementedError(absl::StrCat("region protocol version ", request.version,
                                                   ", this worker speaks version ",
                                                   RegionRequest().version));
    }
    const std::string session(request.session_id, sizeof(request.session_id));
    const bool hex = std::all_of(session.begin(), session.end(), [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    });
    if (!hex) return absl::InvalidArgumentError("session_id is not 32 lower-case hex digits");
    if (request.op == kAdd) return Add(session, request);
    if (request.op == kAddDevice) return AddDevice(session, request);
    if (request.op == kRemove) return Remove(session, request);
    return absl::InvalidArgumentError(
        absl::StrCat("region operation ", request.op,
                     ", expected 1 (add), 2 (remove) or 3 (add device memory)"));
  }

  absl::Status Add(const std::string& session, const RegionRequest& request) {
    if (descriptors_.size() != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("adding a region takes one file descriptor, got ", descriptors_.size()));
    }
    ANNULUS_RETURN_IF_ERROR(CheckRoom());
    ANNULUS_RETURN_IF_ERROR(engine_->AddRegion(session, request.region_id, request.generation,
                                               descriptors_.front().release(), request.bytes));
    return Own(session, request);
  }

  absl::Status AddDevice(const std::string& session, const RegionRequest& request) {
    RegionDeviceMemory memory;
    std::memcpy(&memory, buffer_.data() + sizeof(request), sizeof(memory));
    DeviceLease lease;
    lease.bytes = request.bytes;
    lease.bus_id.assign(memory.bus_id, strnlen(memory.bus_id, sizeof(memory.bus_id)));
    lease.handle.struct_size = sizeof(lease.handle);
    lease.handle.bytes = memory.allocation_bytes;
    lease.handle.offset = memory.offset;
    lease.handle.descriptor = -1;
    if (memory.kind > ANNULUS_MEMORY_DESCRIPTOR) {
      return absl::InvalidArgumentError(
          absl::StrCat("device memory of kind ", memory.kind, ", expected 0 or 1"));
    }
    lease.handle.kind = static_cast<annulusMemoryHandleKind>(memory.kind);
    std::memcpy(lease.handle.ipc, memory.ipc, sizeof(memory.ipc));
    const size_t descriptors = lease.handle.kind == ANNULUS_MEMORY_DESCRIPTOR ? 1 : 0;
    if (descriptors_.size() != descriptors) {
      return absl::InvalidArgumentError(
          absl::StrCat("device memory of kind ", memory.kind, " takes ", descriptors,
                       " file descriptors, got ", descriptors_.size()));
    }
    if (descriptors == 1) lease.handle.descriptor = descriptors_.front().get();
    ANNULUS_RETURN_IF_ERROR(CheckRoom());
    ANNULUS_RETURN_IF_ERROR(
        engine_->AddDeviceRegion(session, request.region_id, request.generation, lease));
    return Own(session, request);
  }

  absl::Status CheckRoom() const {
    if (regions_.size() < max_regions_) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", max_regions_, " regions on one connection"));
  }

  absl::Status Own(const std::string& session, const RegionRequest& request) {
    regions_.emplace(session, request.region_id);
    (*owners_)[{session, request.region_id}] = id_;
    return absl::OkStatus();
  }

  absl::Status Remove(const std::string& session, const RegionRequest& request) {
    if (!descriptors_.empty()) {
      return absl::InvalidArgumentError("removing a region takes no file descriptor");
    }
    const auto owner = owners_->find({session, request.region_id});
    if (owner == owners_->end() || owner->second != id_) {
      return absl::NotFoundError(
          absl::StrCat("region ", request.region_id, " was not added over this connection"));
    }
    owners_->erase(owner);
    regions_.erase({session, request.region_id});
    return engine_->RemoveRegion(session, request.region_id);
  }

  uint64_t id_;
  UniqueFd fd_;
  Engine* engine_;
  Owners* owners_;
  size_t max_regions_;
  std::array<char, sizeof(RegionRequest) + sizeof(RegionDeviceMemory)> buffer_{};
  size_t filled_ = 0;
  std::vector<UniqueFd> descriptors_;
  std::set<std::pair<std::string, uint64_t>> regions_;
};

class RegionServerImpl : public RegionServer {
 public:
  RegionServerImpl(const RegionServerOptions& options, Engine* engine, UnixListener listener,
                   UniqueFd stop)
      : options_(options),
        allowed_uid_(options.allowed_uid.value_or(geteuid())),
        engine_(engine),
        listener_(std::move(listener)),
        stop_(std::move(stop)),
        thread_([this] { Run(); }) {}

  ~RegionServerImpl() override {
    const uint64_t one = 1;
    // Cannot fail: a counter from 0 to 1.
    if (write(stop_.get(), &one, sizeof(one)) == sizeof(one)) thread_.join();
  }

  const std::string& path() const override { return listener_.path(); }

 private:
  void Run() {
    while (true) {
      std::vector<pollfd> polled{{stop_.get(), POLLIN, 0}, {listener_.fd(), POLLIN, 0}};
      for (const Connection& connection : connections_) {
        polled.push_back({connection.fd(), POLLIN, 0});
      }
      // Out of descriptors the listener stays readable: leave it alone for a moment. Otherwise no
      // timeout: every event that matters has a descriptor here, the stop included.
      if (accept_paused_) polled[1].fd = -1;
      const int timeout_ms = std::exchange(accept_paused_, false) ? kAcceptPauseMs : -1;
      if (poll(polled.data(), polled.size(), timeout_ms) < 0) continue;
      if (polled[0].revents != 0) break;
      // Backwards, because Close fills the gap with the last one.
      for (size_t i = connections_.size(); i-- > 0;) {
        if (polled[i + 2].revents != 0 && !connections_[i].Serve()) Close(i);
      }
      if (polled[1].revents != 0) Accept();
    }
    while (!connections_.empty()) Close(connections_.size() - 1);
  }

  void Accept() {
    UniqueFd fd(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
      accept_paused_ = errno == EMFILE || errno == ENFILE;
      return;
    }
    absl::Status admitted = CheckPeer(fd.get(), allowed_uid_);
    if (admitted.ok() && connections_.size() >= static_cast<size_t>(options_.max_connections)) {
      admitted = absl::ResourceExhaustedError(
          absl::StrCat("at most ", options_.max_connections, " connections for regions"));
    }
    if (!admitted.ok()) {
      SendReply(fd.get(), admitted);
      return;
    }
    connections_.emplace_back(++last_id_, std::move(fd), engine_, &owners_,
                              static_cast<size_t>(options_.max_regions_per_connection));
  }

  void Close(size_t index) {
    connections_[index].ReleaseRegions();
    if (index + 1 != connections_.size()) std::swap(connections_[index], connections_.back());
    connections_.pop_back();
  }

  const RegionServerOptions options_;
  const uid_t allowed_uid_;
  Engine* const engine_;
  UnixListener listener_;
  UniqueFd stop_;
  // Of the thread alone.
  uint64_t last_id_ = 0;
  Owners owners_;
  std::vector<Connection> connections_;
  bool accept_paused_ = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace

absl::StatusOr<std::unique_ptr<RegionServer>> RegionServer::Start(
    const RegionServerOptions& options, Engine* engine) {
  ANNULUS_ASSIGN_OR_RETURN(UnixListener listener, UnixListener::Create(options.path));
  UniqueFd stop(eventfd(0, EFD_CLOEXEC));
  if (!stop.valid()) return absl::ErrnoToStatus(errno, "eventfd");
  return std::make_unique<RegionServerImpl>(options, engine, std::move(listener), std::move(stop));
}

}  // namespace annulus::worker
