// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/cuipc_transport.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>

#include "server/transport/cuipc/tags.h"
#include "server/transport/host/host_plugin.h"
#include "server/transport/quiet_thread.h"

namespace annulus::transport::cuipc {
namespace {

constexpr std::chrono::seconds kForgetTimeout(1);

annulusTransportStatus StatusOf(const absl::Status& status) {
  return absl::IsInvalidArgument(status) ? ANNULUS_TRANSPORT_INVALID_ARGUMENT
                                         : ANNULUS_TRANSPORT_RESOURCE;
}

}  // namespace

annulusTransportStatus CuipcTransport::Open(const annulusTransportOptions& options,
                                            std::unique_ptr<CuipcTransport>* transport,
                                            annulusTransportHandle* handle, std::string* why) {
  constexpr size_t kOptionsBytes =
      offsetof(annulusTransportOptions, device_ordinal) + sizeof(options.device_ordinal);
  if (options.struct_size < kOptionsBytes) {
    *why = "the options name no device";
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  if (options.device_ordinal < 0) {
    *why = "no device memory (device_ordinal " + std::to_string(options.device_ordinal) +
           "): use the transport host";
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  auto device = OpenCopyDevice(options.device_ordinal);
  if (!device.ok()) {
    *why = std::string(device.status().message());
    return StatusOf(device.status());
  }
  std::unique_ptr<CuipcTransport> opened(new CuipcTransport(options, *std::move(device)));
  const annulusTransportStatus status = opened->host_->open(&options, &opened->control_, handle);
  if (status != ANNULUS_TRANSPORT_OK) {
    *why = "the host transport underneath cannot be opened";
    return status;
  }
  opened->peers_.resize(static_cast<size_t>(options.size));
  opened->self_ = *DecodeHandle(*handle);
  opened->wake_ = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  opened->listener_ = SideChannel::Listen(opened->self_, options.size + 64);
  if (!opened->wake_ || !opened->listener_) {
    *why = "no descriptor left";
    return ANNULUS_TRANSPORT_RESOURCE;
  }
  opened->host_->set_notify(
      opened->control_, [](void* self) { static_cast<CuipcTransport*>(self)->Wake(); },
      opened.get());
  *transport = std::move(opened);
  return ANNULUS_TRANSPORT_OK;
}

CuipcTransport::CuipcTransport(const annulusTransportOptions& options,
                               std::unique_ptr<CopyDevice> device)
    : host_(HostPlugin()), device_(std::move(device)), rank_(options.rank), size_(options.size) {}

CuipcTransport::~CuipcTransport() {
  if (control_ == nullptr) return;
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  if (outstanding_.load() > 0) host_->abort(control_, "closed with operations outstanding");
  Wake();
  if (thread_.joinable()) thread_.join();
  host_->close(control_);
  for (const OperationPtr& operation : operations_) ReturnRequests(operation.get());
}

annulusTransportStatus CuipcTransport::Connect(const annulusTransportHandle* handles,
                                               int64_t deadline_ns) {
  if (handles == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  std::vector<HandleInfo> infos;
  if (std::string apart = CheckHosts(handles, &infos); !apart.empty()) {
    SetError(-1, std::move(apart));
    return ANNULUS_TRANSPORT_REFUSED;
  }
  annulusTransportStatus status = host_->connect(control_, handles, deadline_ns);
  if (status != ANNULUS_TRANSPORT_OK) return status;  // a second call ends here, too
  handles_ = std::move(infos);
  status = Join(deadline_ns);
  if (status != ANNULUS_TRANSPORT_OK) return status;
  thread_ = QuietThread([this] { Run(); });
  std::lock_guard lock(mutex_);
  connected_ = true;
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus CuipcTransport::Deregister(void* data) {
  const absl::StatusOr<Allocation> found = device_->Find(data);
  if (!found.ok()) {
    SetError(-1, std::string(found.status().message()));
    return StatusOf(found.status());
  }
  std::unique_lock lock(mutex_);
  if (!found->on_device || !connected_) return ANNULUS_TRANSPORT_OK;
  const auto mine = forgetting_.insert(forgetting_.end(), {found->id});
  lock.unlock();
  Wake();
  lock.lock();
  const bool all = forgotten_.wait_for(lock, kForgetTimeout, [&] { return mine->done; });
  forgetting_.erase(mine);
  return all ? ANNULUS_TRANSPORT_OK : ANNULUS_TRANSPORT_DEADLINE;
}

annulusTransportStatus CuipcTransport::Post(bool is_send, int32_t peer, uint64_t tag,
                                            const annulusSegment* segments, size_t segment_count,
                                            int64_t deadline_ns, OperationPtr* operation) {
  {
    std::lock_guard lock(mutex_);
    if (!connected_) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  if (peer < 0 || peer >= size_ || !IsPeer(peer)) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  absl::StatusOr<Placement> placement = Place(device_.get(), segments, segment_count);
  if (!placement.ok()) {
    SetError(peer, std::string(placement.status().message()));
    return StatusOf(placement.status());
  }
  auto posted = std::make_shared<Operation>();
  posted->is_send = is_send;
  posted->peer = peer;
  posted->tag = tag;
  posted->deadline_ns = deadline_ns;
  posted->placement = *std::move(placement);
  annulusTransportStatus status = ANNULUS_TRANSPORT_OK;
  if (!posted->placement.on_device) {
    status = (is_send ? host_->isend : host_->irecv)(control_, peer, tag, segments, segment_count,
                                                     deadline_ns, &posted->data);
  } else if (is_send) {
    const annulusSegment record{posted->offer_record.data(), kRecordBytes};
    status = host_->irecv(control_, peer, OfferTag(tag), &record, 1, deadline_ns, &posted->offer);
    posted->stage = Operation::Stage::kAwaitsOffer;
  } else {
    posted->stage = Operation::Stage::kSharing;
  }
  if (status != ANNULUS_TRANSPORT_OK) return status;
  outstanding_.fetch_add(1);
  *operation = posted;
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(posted));
  }
  Wake();
  return ANNULUS_TRANSPORT_OK;
}

void CuipcTransport::Abort(const char* reason) {
  host_->abort(control_, reason);
  {
    std::lock_guard lock(mutex_);
    aborted_ = true;
  }
  Wake();
}

void CuipcTransport::LastError(char* text, size_t text_bytes, int32_t* peer) {
  {
    std::lock_guard lock(mutex_);
    if (!error_text_.empty()) {
      if (peer != nullptr) *peer = error_peer_;
      if (text != nullptr && text_bytes > 0) text[error_text_.copy(text, text_bytes - 1)] = '\0';
      return;
    }
  }
  host_->last_error(control_, text, text_bytes, peer);
}

void CuipcTransport::Stats(annulusTransportStats* stats) {
  host_->stats(control_, stats);
  if (stats->struct_size < sizeof(annulusTransportStats)) return;
  std::lock_guard lock(mutex_);  // without offers and answers
  stats->sent_bytes = stats_.sent_bytes;
  stats->received_bytes = stats_.received_bytes;
}

void CuipcTransport::SetNotify(void (*notify)(void*), void* context) {
  std::lock_guard lock(mutex_);
  notify_ = notify;
  notify_context_ = context;
}

const char* CuipcTransport::Path(int32_t peer) {
  if (peer == rank_) return "self";
  std::lock_guard lock(mutex_);
  return connected_ && peer >= 0 && peer < size_ && IsPeer(peer) ? "cuipc" : "none";
}

void CuipcTransport::SetError(int32_t peer, std::string text) {
  std::lock_guard lock(mutex_);
  if (!error_text_.empty()) return;
  error_text_ = std::move(text);
  error_peer_ = peer;
}

void CuipcTransport::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

}  // namespace annulus::transport::cuipc
