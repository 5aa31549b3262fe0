// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/host_transport.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

#include "server/transport/host/clock.h"
#include "server/transport/host/socket.h"
#include "server/transport/quiet_thread.h"
#include "server/transport/segments.h"

namespace annulus::transport {
namespace {

constexpr int kBeatsPerTimeout = 5;
constexpr double kDefaultPeerTimeoutSeconds = 1.0;
constexpr size_t kGroupNameMax = 128;
constexpr int32_t kSizeMax = 4096;
constexpr uint32_t kOutstandingMax = 1u << 16;

bool ValidOptions(const annulusTransportOptions& options) {
  return options.struct_size >= offsetof(annulusTransportOptions, window_size) &&
         options.group != nullptr && std::strlen(options.group) <= kGroupNameMax &&
         options.size >= 1 && options.size <= kSizeMax && options.rank >= 0 &&
         options.rank < options.size && options.host_id != nullptr &&
         options.peer_timeout_seconds >= 0 && options.peer_timeout_seconds < 1e6;
}

bool FillRandom(std::array<uint8_t, 16>* bytes) {
  return ::getrandom(bytes->data(), bytes->size(), 0) == static_cast<ssize_t>(bytes->size());
}

}  // namespace

annulusTransportStatus HostTransport::Open(const annulusTransportOptions& options,
                                           std::unique_ptr<HostTransport>* transport,
                                           annulusTransportHandle* handle) {
  if (!ValidOptions(options)) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  HandleInfo self;
  self.rank = options.rank;
  self.size = options.size;
  self.group = HashGroup(options.group);
  self.epoch = options.epoch;
  self.host = HashHost(options.host_id);
  const char* address = options.bind_address != nullptr ? options.bind_address : "127.0.0.1";
  if (!ParseAddress(address, &self)) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  if (!FillRandom(&self.nonce) || !FillRandom(&self.socket_name)) return ANNULUS_TRANSPORT_RESOURCE;
  const double timeout =
      options.peer_timeout_seconds > 0 ? options.peer_timeout_seconds : kDefaultPeerTimeoutSeconds;
  std::unique_ptr<HostTransport> opened(new HostTransport(self, timeout));
  if (!opened->Start()) return ANNULUS_TRANSPORT_RESOURCE;
  *handle = EncodeHandle(opened->self_);
  *transport = std::move(opened);
  return ANNULUS_TRANSPORT_OK;
}

HostTransport::HostTransport(HandleInfo self, double peer_timeout_seconds)
    : self_(self),
      fence_{self.group, self.epoch, self.rank},
      peer_timeout_seconds_(peer_timeout_seconds),
      beat_ns_(static_cast<int64_t>(peer_timeout_seconds * 1e9 / kBeatsPerTimeout)),
      write_interest_(static_cast<size_t>(self.size)),
      dirty_flags_(static_cast<size_t>(self.size)),
      next_deadline_ns_(std::numeric_limits<int64_t>::max()) {
  for (int32_t peer = 0; peer < self.size; ++peer) {
    links_.push_back(peer == self.rank ? nullptr : std::make_unique<Link>(this, fence_, peer));
  }
}

bool HostTransport::Start() {
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  const int backlog = self_.size + 64;
  unix_listener_ = ListenUnix(self_, backlog);
  tcp_listener_ = ListenTcp(&self_, backlog);
  if (!epoll_ || !wake_ || !unix_listener_ || !tcp_listener_) return false;
  thread_ = QuietThread([this] { Run(); });
  return true;
}

HostTransport::~HostTransport() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(inbox_mutex_);
    closing_requested_ = true;
  }
  Wake();
  thread_.join();
}

std::string HostTransport::CheckHandles(const annulusTransportHandle* handles,
                                        std::vector<HandleInfo>* infos) const {
  for (int32_t rank = 0; rank < self_.size; ++rank) {
    if (rank != self_.rank && IsNoPeer(handles[rank])) {
      infos->emplace_back();
      continue;
    }
    const std::optional<HandleInfo> info = DecodeHandle(handles[rank]);
    const std::string which = "handle " + std::to_string(rank);
    if (!info.has_value()) return which + " is not one of the host transport";
    if (info->rank != rank) return which + " belongs to rank " + std::to_string(info->rank);
    if (info->size != self_.size) {
      return which + " is of a group of " + std::to_string(info->size) + ", expected " +
             std::to_string(self_.size);
    }
    if (info->group != self_.group) return which + " is of another group";
    if (info->epoch != self_.epoch) {
      return which + " is of epoch " + std::to_string(info->epoch) + ", expected " +
             std::to_string(self_.epoch);
    }
    infos->push_back(*info);
  }
  if (infos->at(static_cast<size_t>(self_.rank)) != self_)
    return "this rank's handle is not the one it gave";
  return "";
}

annulusTransportStatus HostTransport::Connect(const annulusTransportHandle* handles,
                                              int64_t deadline_ns) {
  {
    std::lock_guard lock(state_mutex_);
    if (phase_ == Phase::kFailed) return failure_;
    if (phase_ != Phase::kOpen || handles == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    std::vector<HandleInfo> infos;
    const std::string wrong = CheckHandles(handles, &infos);
    if (!wrong.empty()) {
      error_text_ = wrong;
      return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    }
    handles_ = std::move(infos);
    phase_ = Phase::kJoining;
  }
  {
    std::lock_guard lock(inbox_mutex_);
    join_requested_ = true;
    connect_deadline_ns_ = deadline_ns;
  }
  Wake();
  // The progress thread ends this wait by the deadline.
  std::unique_lock lock(state_mutex_);
  state_changed_.wait(lock, [this] { return phase_ != Phase::kJoining; });
  return phase_ == Phase::kUp ? ANNULUS_TRANSPORT_OK : failure_;
}

annulusTransportStatus HostTransport::Post(bool is_send, int32_t peer, uint64_t tag,
                                           const annulusSegment* segments, size_t segment_count,
                                           int64_t deadline_ns, OperationPtr* posted) {
  const std::optional<uint64_t> total = TotalBytes(segments, segment_count);
  if (peer < 0 || peer >= self_.size || peer == self_.rank || !total.has_value()) {
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  {
    std::lock_guard lock(state_mutex_);
    if (phase_ == Phase::kOpen || phase_ == Phase::kJoining)
      return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    if (!handles_.empty() && IsAbsent(handles_[static_cast<size_t>(peer)]))
      return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  if (outstanding_.fetch_add(1) >= kOutstandingMax) {
    outstanding_.fetch_sub(1);
    return ANNULUS_TRANSPORT_RESOURCE;
  }
  auto operation = std::make_shared<Operation>();
  operation->peer = peer;
  operation->tag = tag;
  operation->is_send = is_send;
  operation->segments.assign(segments, segments + segment_count);
  operation->total = *total;
  operation->deadline_ns = deadline_ns;
  operation->cursor = SegmentCursor(operation->segments);
  *posted = operation;
  {
    std::lock_guard lock(inbox_mutex_);
    posted_.push_back(std::move(operation));
  }
  Wake();
  return ANNULUS_TRANSPORT_OK;
}

void HostTransport::Abort(const char* reason) {
  const std::string text =
      std::string("aborted: ") + (reason != nullptr ? reason : "no reason given");
  RequestFault({ANNULUS_TRANSPORT_ABORTED, -1, text});
}

void HostTransport::RequestFault(Fault fault) {
  {
    std::lock_guard lock(inbox_mutex_);
    if (!requested_fault_.has_value()) requested_fault_ = std::move(fault);
  }
  Wake();
}

void HostTransport::LastError(char* text, size_t text_bytes, int32_t* peer) {
  std::lock_guard lock(state_mutex_);
  if (peer != nullptr) *peer = error_peer_;
  if (text == nullptr || text_bytes == 0) return;
  const size_t copied = std::min(text_bytes - 1, error_text_.size());
  std::memcpy(text, error_text_.data(), copied);
  text[copied] = '\0';
}

void HostTransport::Stats(annulusTransportStats* stats) {
  std::lock_guard lock(state_mutex_);
  const size_t bytes = std::min(stats->struct_size, sizeof(annulusTransportStats));
  stats_.struct_size = bytes;
  std::memcpy(stats, &stats_, bytes);
}

void HostTransport::SetNotify(void (*notify)(void*), void* context) {
  std::lock_guard lock(state_mutex_);
  notify_ = notify;
  notify_context_ = context;
}

const char* HostTransport::Path(int32_t peer) {
  std::lock_guard lock(state_mutex_);
  if (peer == self_.rank) return "self";
  if (peer < 0 || static_cast<size_t>(peer) >= handles_.size()) return "none";
  if (IsAbsent(handles_[static_cast<size_t>(peer)])) return "none";
  return handles_[static_cast<size_t>(peer)].host == self_.host ? "shm" : "tcp";
}

void HostTransport::SetError(int32_t peer, const std::string& text) {
  std::lock_guard lock(state_mutex_);
  if (!error_text_.empty()) return;
  error_text_ = text;
  error_peer_ = peer;
}

void HostTransport::Wake() {
  {
    std::lock_guard lock(inbox_mutex_);
    if (woken_) return;
    woken_ = true;
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

}  // namespace annulus::transport
