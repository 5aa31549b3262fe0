// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/nccl_plugin.h"

#include "server/transport/nccl/nccl_transport.h"

namespace annulus::transport {
namespace {

using nccl::NcclTransport;
using nccl::Operation;
using nccl::OperationPtr;

struct NcclRequest {
  OperationPtr operation;
};

// The ABI's types stand for these: the host transport gives them a body of its own.
NcclTransport* TransportOf(annulusTransport* transport) {
  return reinterpret_cast<NcclTransport*>(transport);
}
Operation* OperationOf(annulusRequest* request) {
  return reinterpret_cast<NcclRequest*>(request)->operation.get();
}

// Nothing may throw across the ABI; what can here are an allocation and a thread.
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
    std::unique_ptr<NcclTransport> opened;
    const annulusTransportStatus status = NcclTransport::Open(*options, &opened, handle);
    if (status == ANNULUS_TRANSPORT_OK) {
      *transport = reinterpret_cast<annulusTransport*>(opened.release());
    }
    return status;
  });
}

annulusTransportStatus Connect(annulusTransport* transport, const annulusTransportHandle* handles,
                               int64_t deadline_ns) {
  return Guarded([&] { return TransportOf(transport)->Connect(handles, deadline_ns); });
}

annulusTransportStatus RegisterMemory(annulusTransport* transport, void* data, size_t bytes) {
  return Guarded([&] { return TransportOf(transport)->RegisterMemory(data, bytes); });
}

annulusTransportStatus DeregisterMemory(annulusTransport* transport, void* data) {
  return Guarded([&] { return TransportOf(transport)->DeregisterMemory(data); });
}

annulusTransportStatus Post(annulusTransport* transport, bool is_send, int32_t peer, uint64_t tag,
                            const annulusSegment* segments, size_t segment_count,
                            int64_t deadline_ns, annulusRequest** request) {
  if (request == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  return Guarded([&] {
    auto posted = std::make_unique<NcclRequest>();
    const annulusTransportStatus status = TransportOf(transport)->Post(
        is_send, peer, tag, segments, segment_count, deadline_ns, &posted->operation);
    if (status == ANNULUS_TRANSPORT_OK) {
      *request = reinterpret_cast<annulusRequest*>(posted.release());
    }
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
  const Operation* const operation = OperationOf(request);
  *done = static_cast<int32_t>(operation->done.load(std::memory_order_acquire));
  if (*done != 0 && completion != nullptr) *completion = operation->completion;
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus Wait(annulusRequest* const* requests, size_t count,
                            annulusCompletion* completions) {
  if (count > 0 && requests == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  for (size_t i = 0; i < count; ++i) {
    const Operation* const operation = OperationOf(requests[i]);
    // Deadlines, faults and close complete every operation, so this ends.
    operation->done.wait(0, std::memory_order_acquire);
    if (completions != nullptr) completions[i] = operation->completion;
  }
  return ANNULUS_TRANSPORT_OK;
}

void Release(annulusRequest* request) { delete reinterpret_cast<NcclRequest*>(request); }

void Abort(annulusTransport* transport, const char* reason) {
  Guarded([&] {
    TransportOf(transport)->Abort(reason);
    return ANNULUS_TRANSPORT_OK;
  });
}

void LastError(annulusTransport* transport, char* text, size_t text_bytes, int32_t* peer) {
  TransportOf(transport)->LastError(text, text_bytes, peer);
}

void Close(annulusTransport* transport) { delete TransportOf(transport); }

const char* Path(annulusTransport* transport, int32_t peer) {
  return TransportOf(transport)->Path(peer);
}

void Stats(annulusTransport* transport, annulusTransportStats* stats) {
  TransportOf(transport)->Stats(stats);
}

void SetNotify(annulusTransport* transport, void (*notify)(void*), void* context) {
  TransportOf(transport)->SetNotify(notify, context);
}

void GroupBegin(annulusTransport* transport) {
  Guarded([&] {
    TransportOf(transport)->GroupBegin();
    return ANNULUS_TRANSPORT_OK;
  });
}

annulusTransportStatus GroupEnd(annulusTransport* transport) {
  return Guarded([&] { return TransportOf(transport)->GroupEnd(); });
}

}  // namespace

const annulusTransportV1* NcclPlugin() {
  static const annulusTransportV1 table = {
      .struct_size = sizeof(annulusTransportV1),
      .abi_minor = 2,
      .name = "nccl",
      .caps = ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY,
      .open = Open,
      .connect = Connect,
      .register_memory = RegisterMemory,
      .deregister_memory = DeregisterMemory,
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
      .group_begin = GroupBegin,
      .group_end = GroupEnd,
  };
  return &table;
}

}  // namespace annulus::transport
