// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/worker/registering_transport.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

#include "server/transport/host/host_plugin.h"

namespace annulus::worker::testing {
namespace {

struct Slabs {
  std::map<uint8_t*, size_t> bytes;  // by address
  bool over = false;                 // aborted: nothing moves any more
};

struct State {
  std::mutex mutex;
  const annulusTransportV1* base = nullptr;
  std::map<annulusTransport*, Slabs> open;
  bool refuse = false;
  int registered = 0;
  std::string faults;

  // With the mutex held. The slabs of a transport, null when it is closed.
  Slabs* Find(annulusTransport* transport) {
    const auto found = open.find(transport);
    if (found != open.end()) return &found->second;
    faults += "used after its close\n";
    return nullptr;
  }
};

State& TheState() {
  static State state;
  return state;
}

annulusTransportStatus Open(const annulusTransportOptions* options, annulusTransport** transport,
                            annulusTransportHandle* handle) {
  State& state = TheState();
  const annulusTransportStatus status = state.base->open(options, transport, handle);
  std::lock_guard lock(state.mutex);
  if (status == ANNULUS_TRANSPORT_OK) state.open[*transport] = {};
  return status;
}

void Close(annulusTransport* transport) {
  State& state = TheState();
  {
    std::lock_guard lock(state.mutex);
    state.open.erase(transport);
  }
  state.base->close(transport);
}

void Abort(annulusTransport* transport, const char* reason) {
  State& state = TheState();
  {
    std::lock_guard lock(state.mutex);
    if (Slabs* const slabs = state.Find(transport); slabs != nullptr) slabs->over = true;
  }
  state.base->abort(transport, reason);
}

annulusTransportStatus Register(annulusTransport* transport, void* data, size_t bytes) {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  Slabs* const slabs = state.Find(transport);
  if (slabs == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  if (state.refuse) {
    state.refuse = false;
    return ANNULUS_TRANSPORT_RESOURCE;
  }
  ++state.registered;
  if (!slabs->bytes.emplace(static_cast<uint8_t*>(data), bytes).second) {
    state.faults += "registered twice\n";
  }
  return ANNULUS_TRANSPORT_OK;
}

annulusTransportStatus Deregister(annulusTransport* transport, void* data) {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  Slabs* const slabs = state.Find(transport);
  if (slabs == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
  if (slabs->bytes.erase(static_cast<uint8_t*>(data)) == 1) return ANNULUS_TRANSPORT_OK;
  state.faults += "deregistered, but never registered\n";
  return ANNULUS_TRANSPORT_RESOURCE;
}

void CheckSegments(annulusTransport* transport, const annulusSegment* segments, size_t count) {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  const Slabs* const slabs = state.Find(transport);
  for (size_t i = 0; slabs != nullptr && !slabs->over && i < count; ++i) {
    auto* const data = static_cast<uint8_t*>(segments[i].data);
    auto slab = slabs->bytes.upper_bound(data);
    const bool inside =
        slab != slabs->bytes.begin() && data + segments[i].bytes <= (--slab)->first + slab->second;
    if (!inside) state.faults += "a transfer of memory that is not registered\n";
  }
}

annulusTransportStatus Isend(annulusTransport* transport, int32_t peer, uint64_t tag,
                             const annulusSegment* segments, size_t count, int64_t deadline_ns,
                             annulusRequest** request) {
  CheckSegments(transport, segments, count);
  return TheState().base->isend(transport, peer, tag, segments, count, deadline_ns, request);
}

annulusTransportStatus Irecv(annulusTransport* transport, int32_t peer, uint64_t tag,
                             const annulusSegment* segments, size_t count, int64_t deadline_ns,
                             annulusRequest** request) {
  CheckSegments(transport, segments, count);
  return TheState().base->irecv(transport, peer, tag, segments, count, deadline_ns, request);
}

}  // namespace

const annulusTransportV1* Registering::Over(const annulusTransportV1* base) {
  static annulusTransportV1 table;
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  state.base = base == nullptr ? transport::HostPlugin() : base;
  state.refuse = false;
  state.registered = 0;
  state.faults.clear();
  table = *state.base;
  table.name = "registering";
  table.open = Open;
  table.close = Close;
  table.abort = Abort;
  table.register_memory = Register;
  table.deregister_memory = Deregister;
  table.isend = Isend;
  table.irecv = Irecv;
  return &table;
}

void Registering::RefuseNext() {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  state.refuse = true;
}

int Registering::registered() {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  return state.registered;
}

int Registering::held() {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  size_t held = 0;
  for (const auto& [transport, slabs] : state.open) held += slabs.bytes.size();
  return static_cast<int>(held);
}

std::string Registering::faults() {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  return state.faults;
}

}  // namespace annulus::worker::testing
