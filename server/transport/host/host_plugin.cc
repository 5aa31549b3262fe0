// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/host_plugin.h"

#include <new>

#include "server/transport/host/host_transport.h"

struct annulusTransport {
  std::unique_ptr<annulus::transport::HostTransport> host;
};

namespace annulus::transport {
namespace {

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
    auto opened = std::make_unique<annulusTransport>();
    const annulusTransportStatus status = HostTransport::Open(*options, &opened->host, handle);
    if (status == ANNULUS_TRANSPORT_OK) *transport = opened.release();
    return status;
  });
}

annulusTransportStatus Connect(annulusTransport* transport, const annulusTransportHandle* handles,
                               int64_t deadline_ns) {
  return Guarded([&] { return transport->host->Connect(handles, deadline_ns); });
}

annulusTransportStatus Isend(annulusTransport* transport, int32_t peer, uint64_t tag,
                             const annulusSegment* segments, size_t segment_count,
                             int64_t deadline_ns, annulusRequest** request) {
  return Guarded([&] {
    return transport->host->Post(true, peer, tag, segments, segment_count, deadline_ns, request);
  });
}

annulusTransportStatus Irecv(annulusTransport* transport, int32_t peer, uint64_t tag,
                             const annulusSegment* segments, size_t segment_count,
                             int64_t deadline_ns, annulusRequest** request) {
  return Guarded([&] {
    return transport->host->Post(false, peer, tag, segments, segment_count, deadline_ns, request);
  });
}

annulusTransportStatus Test(annulusRequest* request, int32_t* done, annulusCompletion* completion) {
  if (request == nullptr || done == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  *done = static_cast<int32_t>(request->operation->done.load(std::memory_order_acquire));
  if (*done != 0 && completion != nullptr) *completion = request->operation->completion;
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus Wait(annulusRequest* const* requests, size_t count,
                            annulusCompletion* completions) {
  if (count > 0 && requests == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  for (size_t i = 0; i < count; ++i) {
    // Deadlines, faults and close complete every operation, so this ends.
    requests[i]->operation->done.wait(0, std::memory_order_acquire);
    if (completions != nullptr) completions[i] = requests[i]->operation->completion;
  }
  return ANNULUS_TRANSPORT_OK;
}

void Release(annulusRequest* request) { delete request; }

void Abort(annulusTransport* transport, const char* reason) {
  Guarded([&] {
    transport->host->Abort(reason);
    return ANNULUS_TRANSPORT_OK;
  });
}

void LastError(annulusTransport* transport, char* text, size_t text_bytes, int32_t* peer) {
  transport->host->LastError(text, text_bytes, peer);
}

void Close(annulusTransport* transport) { delete transport; }

const char* Path(annulusTransport* transport, int32_t peer) { return transport->host->Path(peer); }

void Stats(annulusTransport* transport, annulusTransportStats* stats) {
  transport->host->Stats(stats);
}

void SetNotify(annulusTransport* transport, void (*notify)(void*), void* context) {
  transport->host->SetNotify(notify, context);
}

}  // namespace

const annulusTransportV1* HostPlugin() {
  static const annulusTransportV1 table = {
      .struct_size = sizeof(annulusTransportV1),
      .abi_minor = 2,
      .name = "host",
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
  };
  return &table;
}

}  // namespace annulus::transport
