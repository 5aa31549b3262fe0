// SPDX-License-Identifier: Apache-2.0
#include "server/transport/pacing/pacing.h"

#include <cstddef>
#include <mutex>

#include "server/transport/pacing/paced_transport.h"

namespace annulus::transport {
namespace {

struct PacedHandle {
  std::unique_ptr<PacedTransport> paced;
};

struct PacedRequest {
  PacedOperationPtr operation;
};

PacedTransport* TransportOf(annulusTransport* transport) {
  return reinterpret_cast<PacedHandle*>(transport)->paced.get();
}
PacedOperation* OperationOf(annulusRequest* request) {
  return reinterpret_cast<PacedRequest*>(request)->operation.get();
}

struct Defaults {
  std::mutex mutex;
  const annulusTransportV1* inner = nullptr;
  PacingModel model;
};

Defaults& TheDefaults() {
  static Defaults defaults;
  return defaults;
}

// Nothing may throw across the ABI; the one thing that can here is an allocation.
template <typename Function>
annulusTransportStatus Guarded(Function&& function) noexcept {
  try {
    return function();
  } catch (...) {
    return ANNULUS_TRANSPORT_RESOURCE;
  }
}

annulusTransportStatus Open(const annulusTransportOptions* options, annulusTransport** transport,
                            annulusTransportHandle* handle) {
  if (options == nullptr || transport == nullptr || handle == nullptr) {
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  return Guarded([&] {
    const annulusTransportV1* inner = nullptr;
    PacingModel model;
    {
      std::lock_guard lock(TheDefaults().mutex);
      inner = TheDefaults().inner;
      model = TheDefaults().model;
    }
    auto opened = std::make_unique<PacedHandle>();
    const annulusTransportStatus status =
        PacedTransport::Open(inner, model, *options, &opened->paced, handle);
    if (status == ANNULUS_TRANSPORT_OK)
      *transport = reinterpret_cast<annulusTransport*>(opened.release());
    return status;
  });
}

annulusTransportStatus Connect(annulusTransport* transport, const annulusTransportHandle* handles,
                               int64_t deadline_ns) {
  return TransportOf(transport)->Connect(handles, deadline_ns);
}

annulusTransportStatus Post(annulusTransport* transport, bool is_send, int32_t peer, uint64_t tag,
                            const annulusSegment* segments, size_t segment_count,
                            int64_t deadline_ns, annulusRequest** request) {
  if (request == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  return Guarded([&] {
    auto posted = std::make_unique<PacedRequest>();
    const annulusTransportStatus status = TransportOf(transport)->Post(
        is_send, peer, tag, segments, segment_count, deadline_ns, &posted->operation);
    if (status == ANNULUS_TRANSPORT_OK)
      *request = reinterpret_cast<annulusRequest*>(posted.release());
    return status;
  });
}

annulusTransportStatus Isend(annulusTransport* transport, int32_t peer, uint64_t tag,
                             const annulusSegment* segments, size_t segment_count,
                             int64_t deadline_ns, annulusRequest** request) {
  return Post(transport, true, peer, tag, segments, segment_count, deadline_ns, request);
}

annulusTransportStatus Irecv(annulusTransport* transport, int32_t peer, uint64_t tag,
                             const annulusSegment* segments, size_t segment_count,
                             int64_t deadline_ns, annulusRequest** request) {
  return Post(transport, false, peer, tag, segments, segment_count, deadline_ns, request);
}

annulusTransportStatus Test(annulusRequest* request, int32_t* done, annulusCompletion* completion) {
  if (request == nullptr || done == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  *done = static_cast<int32_t>(OperationOf(request)->done.load(std::memory_order_acquire));
  if (*done != 0 && completion != nullptr) *completion = OperationOf(request)->completion;
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus Wait(annulusRequest* const* requests, size_t count,
                            annulusCompletion* completions) {
  if (count > 0 && requests == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  for (size_t i = 0; i < count; ++i) {
    OperationOf(requests[i])->done.wait(0, std::memory_order_acquire);
    if (completions != nullptr) completions[i] = OperationOf(requests[i])->completion;
  }
  return ANNULUS_TRANSPORT_OK;
}

void Release(annulusRequest* request) { delete reinterpret_cast<PacedRequest*>(request); }

void Abort(annulusTransport* transport, const char* reason) {
  TransportOf(transport)->Abort(reason);
}

void LastError(annulusTransport* transport, char* text, size_t text_bytes, int32_t* peer) {
  TransportOf(transport)->LastError(text, text_bytes, peer);
}

void Close(annulusTransport* transport) { delete reinterpret_cast<PacedHandle*>(transport); }

const char* Path(annulusTransport* transport, int32_t peer) {
  return TransportOf(transport)->Path(peer);
}

void Stats(annulusTransport* transport, annulusTransportStats* stats) {
  TransportOf(transport)->Stats(stats);
}

void SetNotify(annulusTransport* transport, void (*notify)(void*), void* context) {
  TransportOf(transport)->SetNotify(notify, context);
}

const char* OpenError() {
  std::lock_guard lock(TheDefaults().mutex);
  const annulusTransportV1* const inner = TheDefaults().inner;
  const bool tells =
      inner->struct_size >= offsetof(annulusTransportV1, open_error) + sizeof(inner->open_error) &&
      inner->open_error != nullptr;
  return tells ? inner->open_error() : "";
}

}  // namespace

const annulusTransportV1* PacingTransport(const annulusTransportV1* inner,
                                          const PacingModel& model) {
  static annulusTransportV1 table = {
      .struct_size = sizeof(annulusTransportV1),
      .abi_minor = 2,
      .name = "pacing",
      .caps = ANNULUS_TRANSPORT_CAP_HOST_MEMORY,
      .open = Open,
      .connect = Connect,
      .register_memory = nullptr,
      .deregister_memory = nullptr,
      .isend = Isend,
      .irecv = Irecv,
      .test = Test,
      .wait = Wait,
      .release = Release,
      .abort = Abort,
      .last_error = LastError,
      .close = Close,
      .path = Path,
      .stats = Stats,
      .set_notify = SetNotify,
      .group_begin = nullptr,
      .group_end = nullptr,
      .open_error = OpenError,
  };
  std::lock_guard lock(TheDefaults().mutex);
  // The words about a transfer lie in host memory, whatever else goes through `inner`.
  table.caps =
      inner->caps & (ANNULUS_TRANSPORT_CAP_HOST_MEMORY | ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY);
  TheDefaults().inner = inner;
  TheDefaults().model = model;
  return &table;
}

}  // namespace annulus::transport
