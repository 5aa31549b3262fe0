// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/nccl_transport.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_join.h"
#include "server/transport/host/clock.h"
#include "server/transport/host/handle.h"
#include "server/transport/host/host_plugin.h"
#include "server/transport/nccl/profiler.h"
#include "server/transport/quiet_thread.h"
#include "server/transport/segments.h"

namespace annulus::transport::nccl {
namespace {

constexpr uint32_t kOutstandingMax = 1u << 16;

bool Has(const annulusTransportOptions& options, size_t end) { return options.struct_size >= end; }

int32_t WindowOf(const annulusTransportOptions& options) {
  const bool named = Has(options, offsetof(annulusTransportOptions, window_size) + sizeof(int32_t));
  return named && options.window_size != 0 ? options.window_size : options.size;
}

int32_t OrdinalOf(const annulusTransportOptions& options) {
  const bool named =
      Has(options, offsetof(annulusTransportOptions, device_ordinal) + sizeof(int32_t));
  return named ? options.device_ordinal : -1;
}

}  // namespace

annulusTransportStatus NcclTransport::Open(const annulusTransportOptions& options,
                                           std::unique_ptr<NcclTransport>* transport,
                                           annulusTransportHandle* handle) {
  const annulusTransportV1* const host = HostPlugin();
  annulusTransport* plain = nullptr;
  // The host transport checks what it uses of the options, too.
  const annulusTransportStatus status = host->open(&options, &plain, handle);
  if (status != ANNULUS_TRANSPORT_OK) return status;
  const int32_t window = WindowOf(options);
  if (window < 1 || options.size % window != 0 || OrdinalOf(options) < 0) {
    host->close(plain);
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  std::unique_ptr<NcclTransport> opened(new NcclTransport(options));
  opened->control_ = std::make_unique<Control>(
      host, plain, [](void* self) { static_cast<NcclTransport*>(self)->Wake(); }, opened.get());
  opened->thread_ = QuietThread([self = opened.get()] { self->Run(); });
  *transport = std::move(opened);
  return ANNULUS_TRANSPORT_OK;
}

NcclTransport::NcclTransport(const annulusTransportOptions& options)
    : settings_(Settings::FromEnvironment()),
      rank_(options.rank),
      size_(options.size),
      window_(WindowOf(options)),
      box_(std::make_shared<ReportBox>([this] { Wake(); })),
      is_peer_(static_cast<size_t>(size_), true) {
  if (settings_.profiler) OfferProfiler();
  const absl::StatusOr<std::shared_ptr<NcclApi>> nccl = OpenNccl();
  const absl::StatusOr<std::shared_ptr<CudaApi>> cuda = OpenCuda(OrdinalOf(options));
  loaded_ = nccl.ok() ? cuda.status() : nccl.status();
  if (!loaded_.ok()) return;
  facts_ = {kWireVersion, (*nccl)->version(), (*cuda)->driver_version(), (*cuda)->device_words()};
  const std::string name = std::string(options.group) + "/" + std::to_string(options.epoch) + "/";
  for (const Membership& membership : MembershipsOf(rank_, size_, window_)) {
    const LaneOptions lane{
        membership,
        {name + LevelName(membership.level), settings_.max_ctas,
         membership.level == ANNULUS_LEVEL_OUTER ? settings_.network_channels : 0},
        options.epoch,
        settings_.abort_ns};
    auto communicator = std::make_unique<Communicator>(lane, *nccl, *cuda, box_);
    Circle circle{membership, nullptr, nullptr};
    circle.seat =
        std::make_unique<Seat>(membership, std::move(communicator), settings_.abort_ns, this);
    if (membership.leader() == rank_) {
      circle.leader = std::make_unique<Leader>(membership, facts_, this);
    }
    circles_.push_back(std::move(circle));
  }
}

NcclTransport::~NcclTransport() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(inbox_mutex_);
    closing_requested_ = true;
  }
  Wake();
  thread_.join();
  control_.reset();
  box_->Close();
  // Both at once: each may take its limit.
  std::vector<std::thread> freeing;
  for (Circle& circle : circles_) {
    freeing.emplace_back([communicator = circle.seat->communicator()] { communicator->Free(); });
  }
  for (std::thread& each : freeing) each.join();
}

annulusTransportStatus NcclTransport::Connect(const annulusTransportHandle* handles,
                                              int64_t deadline_ns) {
  if (handles == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  std::vector<bool> is_peer(static_cast<size_t>(size_));
  for (int32_t rank = 0; rank < size_; ++rank) {
    is_peer[static_cast<size_t>(rank)] = !IsNoPeer(handles[rank]);
  }
  if (const std::string wrong = CheckPeers(is_peer); !wrong.empty()) {
    SetError(-1, wrong);
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  const annulusTransportStatus status = control_->Connect(handles, deadline_ns);
  if (status != ANNULUS_TRANSPORT_OK) {
    const Fault seen = control_->LastFault(status);
    SetError(seen.suspect, seen.text);
    return seen.status;
  }
  {
    std::lock_guard lock(state_mutex_);
    if (phase_ == Phase::kFailed) return failure_;
    if (phase_ != Phase::kOpen) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    phase_ = Phase::kJoining;
    is_peer_ = std::move(is_peer);
  }
  {
    std::lock_guard lock(inbox_mutex_);
    join_requested_ = true;
    join_deadline_ns_ = deadline_ns;
  }
  Wake();
  // The progress thread ends this wait by the deadline.
  std::unique_lock lock(state_mutex_);
  state_changed_.wait(lock, [this] { return phase_ != Phase::kJoining; });
  return phase_ == Phase::kUp ? ANNULUS_TRANSPORT_OK : failure_;
}

std::string NcclTransport::CheckPeers(const std::vector<bool>& is_peer) const {
  for (const Circle& circle : circles_) {
    const int32_t peers = CountPeers(circle.membership, is_peer);
    if (peers == 0 || peers == circle.membership.size() - 1) continue;
    std::vector<int32_t> strangers;
    for (const int32_t rank : circle.membership.ranks) {
      if (!is_peer[static_cast<size_t>(rank)]) strangers.push_back(rank);
    }
    return (circle.membership.level == ANNULUS_LEVEL_INNER
                ? "inner communicator of window " + std::to_string(rank_ / window_)
                : "outer communicator of index " + std::to_string(rank_ % window_)) +
           " (ranks " + absl::StrJoin(circle.membership.ranks, ", ") +
           "): expected all of them as peers of rank " + std::to_string(rank_) +
           " or none, but the handles of " + absl::StrJoin(strangers, ", ") + " alone are zeros";
  }
  return "";
}

annulusTransportStatus NcclTransport::Post(bool is_send, int32_t peer, uint64_t tag,
                                           const annulusSegment* segments, size_t segment_count,
                                           int64_t deadline_ns, OperationPtr* operation) {
  const std::optional<uint64_t> total = TotalBytes(segments, segment_count);
  if (peer < 0 || peer >= size_ || peer == rank_ || !total.has_value()) {
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  const Circle* const circle = CircleOf(peer);
  if (circle == nullptr) {
    SetError(peer, "peer " + std::to_string(peer) + " is neither in the window of rank " +
                       std::to_string(rank_) + " nor at its index in another (windows of " +
                       std::to_string(window_) + "): no communicator has both");
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  {
    std::lock_guard lock(state_mutex_);
    if (phase_ == Phase::kOpen || phase_ == Phase::kJoining ||
        !is_peer_[static_cast<size_t>(peer)]) {
      return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    }
  }
  if (outstanding_.fetch_add(1) >= kOutstandingMax) {
    outstanding_.fetch_sub(1);
    return ANNULUS_TRANSPORT_RESOURCE;
  }
  auto posted = std::make_shared<Operation>();
  posted->peer = peer;
  posted->peer_index = IndexOf(circle->membership, peer);
  posted->tag = tag;
  posted->is_send = is_send;
  posted->segments.assign(segments, segments + segment_count);
  posted->total = *total;
  posted->deadline_ns = deadline_ns;
  *operation = posted;
  {
    std::lock_guard lock(inbox_mutex_);
    const auto group = groups_.find(std::this_thread::get_id());
    if (group != groups_.end()) {
      group->second.push_back(std::move(posted));
      return ANNULUS_TRANSPORT_OK;
    }
    posted_.push_back({std::move(posted)});
  }
  Wake();
  return ANNULUS_TRANSPORT_OK;
}

void NcclTransport::GroupBegin() {
  std::lock_guard lock(inbox_mutex_);
  groups_.try_emplace(std::this_thread::get_id());
}

annulusTransportStatus NcclTransport::GroupEnd() {
  {
    std::lock_guard lock(inbox_mutex_);
    auto group = groups_.extract(std::this_thread::get_id());
    if (group.empty()) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    if (!group.mapped().empty()) posted_.push_back(std::move(group.mapped()));
  }
  Wake();
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus NcclTransport::RegisterMemory(void* data, size_t bytes) {
  if (data == nullptr || bytes == 0) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  for (Circle& circle : circles_) {
    const annulusTransportStatus status = circle.seat->communicator()->Register(data, bytes);
    if (status != ANNULUS_TRANSPORT_OK) return status;
  }
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus NcclTransport::DeregisterMemory(void* data) {
  annulusTransportStatus first = ANNULUS_TRANSPORT_OK;
  for (Circle& circle : circles_) {
    const annulusTransportStatus status = circle.seat->communicator()->Deregister(data);
    if (first == ANNULUS_TRANSPORT_OK) first = status;
  }
  return first;
}

void NcclTransport::Abort(const char* reason) {
  {
    std::lock_guard lock(inbox_mutex_);
    if (!requested_fault_.has_value()) {
      requested_fault_ =
          Fault{ANNULUS_TRANSPORT_ABORTED, -1,
                std::string("aborted: ") + (reason != nullptr ? reason : "no reason given")};
    }
  }
  Wake();
}

void NcclTransport::LastError(char* text, size_t text_bytes, int32_t* peer) {
  std::lock_guard lock(state_mutex_);
  if (peer != nullptr) *peer = error_peer_;
  if (text == nullptr || text_bytes == 0) return;
  text[error_text_.copy(text, text_bytes - 1)] = '\0';
}

void NcclTransport::Stats(annulusTransportStats* stats) {
  annulusTransportStats all{};
  all.struct_size = sizeof(all);
  control_->Stats(&all);
  std::lock_guard lock(state_mutex_);
  all.sent_bytes = sent_bytes_;  // without the control messages
  all.received_bytes = received_bytes_;
  const size_t bytes = std::min(stats->struct_size, sizeof(all));
  all.struct_size = bytes;
  std::copy_n(reinterpret_cast<const char*>(&all), bytes, reinterpret_cast<char*>(stats));
}

void NcclTransport::SetNotify(void (*notify)(void*), void* context) {
  std::lock_guard lock(state_mutex_);
  notify_ = notify;
  notify_context_ = context;
}

const char* NcclTransport::Path(int32_t peer) const {
  if (peer == rank_) return "self";
  for (const Circle& circle : circles_) {
    if (IndexOf(circle.membership, peer) < 0) continue;
    std::lock_guard lock(state_mutex_);
    if (!is_peer_[static_cast<size_t>(peer)]) return "none";
    return circle.membership.level == ANNULUS_LEVEL_INNER ? "nccl inner" : "nccl outer";
  }
  return "none";
}

NcclTransport::Circle* NcclTransport::CircleOf(int32_t peer) {
  for (Circle& circle : circles_) {
    if (IndexOf(circle.membership, peer) >= 0) return &circle;
  }
  return nullptr;
}

NcclTransport::Circle* NcclTransport::CircleOf(annulusLevel level) {
  for (Circle& circle : circles_) {
    if (circle.membership.level == level) return &circle;
  }
  return nullptr;
}

void NcclTransport::SetError(int32_t peer, const std::string& text) {
  std::lock_guard lock(state_mutex_);
  if (!error_text_.empty()) return;
  error_text_ = text;
  error_peer_ = peer;
}

void NcclTransport::Wake() {
  std::lock_guard lock(inbox_mutex_);
  woken_ = true;
  woken_changed_.notify_one();
}

}  // namespace annulus::transport::nccl
