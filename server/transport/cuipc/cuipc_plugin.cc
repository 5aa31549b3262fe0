// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/cuipc_plugin.h"

#include <string>

#include "server/transport/cuipc/cuipc_transport.h"

namespace annulus::transport::cuipc {
namespace {

struct Handle {
  std::unique_ptr<CuipcTransport> cuipc;
};

struct Posted {
  OperationPtr operation;
};

CuipcTransport* TransportOf(annulusTransport* transport) {
  return reinterpret_cast<Handle*>(transport)->cuipc.get();
}
Operation* OperationOf(annulusRequest* request) {
  return reinterpret_cast<Posted*>(request)->operation.get();
}

std::string& OpenFailure() {
  thread_local std::string text;
  return text;
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
    auto opened = std::make_unique<Handle>();
    OpenFailure().clear();
    const annulusTransportStatus status =
        CuipcTransport::Open(*options, &opened->cuipc, handle, &OpenFailure());
    if (status == ANNULUS_TRANSPORT_OK)
      *transport = reinterpret_cast<annulusTransport*>(opened.release());
    return status;
  });
}

annulusTransportStatus Connect(annulusTransport* transport, const annulusTransportHandle* handles,
                               int64_t deadline_ns) {
  return Guarded([&] { return TransportOf(transport)->Connect(handles, deadline_ns); });
}

annulusTransportStatus Deregister(annulusTransport* transport, void* data) {
  return Guarded([&] { return TransportOf(transport)->Deregister(data); });
}

annulusTransportStatus Post(annulusTransport* transport, bool is_send, int32_t peer, uint64_t tag,
                            const annulusSegment* segments, size_t segment_count,
                            int64_t deadline_ns, annulusRequest** request) {
  if (request == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  return Guarded([&] {
    auto posted = std::make_unique<Posted>();
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

void Release(annulusRequest* request) { delete reinterpret_cast<Posted*>(request); }

void Abort(annulusTransport* transport, const char* reason) {
  TransportOf(transport)->Abort(reason);
}

void LastError(annulusTransport* transport, char* text, size_t text_bytes, int32_t* peer) {
  TransportOf(transport)->LastError(text, text_bytes, peer);
}

const char* OpenError() { return OpenFailure().c_str(); }

void Close(annulusTransport* transport) { delete reinterpret_cast<Handle*>(transport); }

const char* Path(annulusTransport* transport, int32_t peer) {
  return TransportOf(transport)->Path(peer);
}

void Stats(annulusTransport* transport, annulusTransportStats* stats) {
  TransportOf(transport)->Stats(stats);
}

void SetNotify(annulusTransport* transport, void (*notify)(void*), void* context) {
  TransportOf(transport)->SetNotify(notify, context);
}

}  // namespace

const annulusTransportV1* CuipcPlugin() {
  static const annulusTransportV1 table = {
      .struct_size = sizeof(annulusTransportV1),
      .abi_minor = 2,
      .name = "cuipc",
      .caps = ANNULUS_TRANSPORT_CAP_HOST_MEMORY | ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY,
      .open = Open,
      .connect = Connect,
      .register_memory = nullptr,  // memory is shared with a peer when it is first received into
      .deregister_memory = Deregister,
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
      .group_begin = nullptr,  // operations start by themselves, in any order
      .group_end = nullptr,
      .open_error = OpenError,
  };
  return &table;
}

}  // namespace annulus::transport::cuipc
