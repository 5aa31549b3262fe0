// SPDX-License-Identifier: Apache-2.0
#include "server/transport/pacing/null_transport.h"

#include <atomic>
#include <mutex>
#include <new>
#include <string>

#include "server/transport/host/clock.h"

namespace annulus::transport {
namespace {

struct NullState {
  int32_t rank = 0;
  int32_t size = 1;
  std::mutex mutex;
  bool connected = false;
  std::string aborted;  // empty: not aborted
  annulusTransportStats stats{};
  void (*notify)(void*) = nullptr;
  void* notify_context = nullptr;
};

NullState* StateOf(annulusTransport* transport) { return reinterpret_cast<NullState*>(transport); }
annulusCompletion* EndOf(annulusRequest* request) {
  return reinterpret_cast<annulusCompletion*>(request);
}

annulusTransportStatus OpenNull(const annulusTransportOptions* options,
                                annulusTransport** transport, annulusTransportHandle* handle) {
  if (options == nullptr || transport == nullptr || handle == nullptr || options->size < 1 ||
      options->rank < 0 || options->rank >= options->size) {
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  auto* state = new (std::nothrow) NullState;
  if (state == nullptr) return ANNULUS_TRANSPORT_RESOURCE;
  state->rank = options->rank;
  state->size = options->size;
  *handle = {};
  *transport = reinterpret_cast<annulusTransport*>(state);
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus Connect(annulusTransport* transport, const annulusTransportHandle*,
                               int64_t) {
  std::lock_guard lock(StateOf(transport)->mutex);
  StateOf(transport)->connected = true;
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus Post(annulusTransport* transport, bool is_send, int32_t peer,
                            const annulusSegment* segments, size_t segment_count,
                            annulusRequest** request) {
  NullState* const state = StateOf(transport);
  std::lock_guard lock(state->mutex);
  if (!state->connected || peer < 0 || peer >= state->size || peer == state->rank ||
      request == nullptr) {
    return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  }
  auto* end = new (std::nothrow) annulusCompletion{};
  if (end == nullptr) return ANNULUS_TRANSPORT_RESOURCE;
  end->status = state->aborted.empty() ? ANNULUS_TRANSPORT_OK : ANNULUS_TRANSPORT_ABORTED;
  end->peer = peer;
  end->start_ns = end->end_ns = NowNs();
  for (size_t i = 0; i < segment_count; ++i) end->bytes += segments[i].bytes;
  (is_send ? state->stats.sent_bytes : state->stats.received_bytes) += end->bytes;
  *request = reinterpret_cast<annulusRequest*>(end);
  if (state->notify != nullptr) state->notify(state->notify_context);
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus Isend(annulusTransport* transport, int32_t peer, uint64_t,
                             const annulusSegment* segments, size_t segment_count, int64_t,
                             annulusRequest** request) {
  return Post(transport, true, peer, segments, segment_count, request);
}

annulusTransportStatus Irecv(annulusTransport* transport, int32_t peer, uint64_t,
                             const annulusSegment* segments, size_t segment_count, int64_t,
                             annulusRequest** request) {
  return Post(transport, false, peer, segments, segment_count, request);
}

annulusTransportStatus Test(annulusRequest* request, int32_t* done, annulusCompletion* completion) {
  *done = 1;
  if (completion != nullptr) *completion = *EndOf(request);
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus Wait(annulusRequest* const* requests, size_t count,
                            annulusCompletion* completions) {
  for (size_t i = 0; i < count && completions != nullptr; ++i) completions[i] = *EndOf(requests[i]);
  return ANNULUS_TRANSPORT_OK;
}

void Release(annulusRequest* request) { delete EndOf(request); }

void Abort(annulusTransport* transport, const char* reason) {
  std::lock_guard lock(StateOf(transport)->mutex);
  if (!StateOf(transport)->aborted.empty()) return;
  StateOf(transport)->aborted =
      std::string("aborted: ") + (reason != nullptr ? reason : "no reason given");
}

void LastError(annulusTransport* transport, char* text, size_t text_bytes, int32_t* peer) {
  std::lock_guard lock(StateOf(transport)->mutex);
  if (peer != nullptr) *peer = -1;
  if (text == nullptr || text_bytes == 0) return;
  text[StateOf(transport)->aborted.copy(text, text_bytes - 1)] = '\0';
}

void Close(annulusTransport* transport) { delete StateOf(transport); }

const char* Path(annulusTransport*, int32_t) { return "none"; }

void Stats(annulusTransport* transport, annulusTransportStats* stats) {
  std::lock_guard lock(StateOf(transport)->mutex);
  StateOf(transport)->stats.struct_size = sizeof(annulusTransportStats);
  if (stats->struct_size >= sizeof(annulusTransportStats)) *stats = StateOf(transport)->stats;
}

void SetNotify(annulusTransport* transport, void (*notify)(void*), void* context) {
  std::lock_guard lock(StateOf(transport)->mutex);
  StateOf(transport)->notify = notify;
  StateOf(transport)->notify_context = context;
}

}  // namespace

const annulusTransportV1* NullTransport() {
  static const annulusTransportV1 table = {
      .struct_size = sizeof(annulusTransportV1),
      .abi_minor = 2,
      .name = "null",
      .caps = ANNULUS_TRANSPORT_CAP_HOST_MEMORY | ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY,
      .open = OpenNull,
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
  };
  return &table;
}

}  // namespace annulus::transport
