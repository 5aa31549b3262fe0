// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/transport/transport_plugin.h"

// The transport as the worker uses it: a transport plugin table behind types that own what they
// hold.
//
//   ANNULUS_ASSIGN_OR_RETURN(auto transport, Transport::Open(table, options));
//   ... transport->handle() goes to the coordinator, the handles of all ranks come back ...
//   ANNULUS_RETURN_IF_ERROR(transport->Connect(handles, deadline_ns));
//
// A group may have one transport inside nodes and another between them. Both are opened here, and
// a transfer takes the one of its peer's level:
//
//   Transport::OpenByLevel({inner_table, outer_table}, levels, options)
//   ... handle() and outer_handle() go out, both lists come back ...
//   transport->ConnectByLevel(handles, outer_handles, deadline_ns)
//
// In either case:
//
//   ANNULUS_ASSIGN_OR_RETURN(Request request, transport->IRecv(peer, tag, segments, deadline_ns));
//   ANNULUS_RETURN_IF_ERROR(transport->Wait(absl::MakeSpan(&request, 1)).front().status);
namespace annulus::transport {

// How a transfer ended. Stamps are CLOCK_MONOTONIC, from the first byte moved to the last.
struct Completion {
  absl::Status status;
  int32_t peer = -1;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  uint64_t bytes = 0;
};

// One posted operation; the destructor returns it to its transport. Move-only. Must be complete
// when destroyed, unless the transport was closed.
class Request {
 public:
  Request() = default;
  Request(const annulusTransportV1* table, annulusRequest* request)
      : table_(table), request_(request) {}
  Request(Request&& other) noexcept;
  Request& operator=(Request&& other) noexcept;
  ~Request() { Reset(); }

  bool valid() const { return request_ != nullptr; }
  // Not blocking. Precondition: valid().
  bool Done() const;

 private:
  friend class Transport;
  void Reset();

  const annulusTransportV1* table_ = nullptr;
  annulusRequest* request_ = nullptr;
};

// Options of Open; the strings are copied.
struct TransportOptions {
  std::string group;
  uint64_t epoch = 0;
  int32_t rank = 0;
  int32_t size = 1;
  std::string host_id;
  std::string bind_address = "127.0.0.1";
  double peer_timeout_seconds = 1.0;
  int32_t window_size = 0;      // ranks of an inner ring; 0: all
  int32_t device_ordinal = -1;  // -1: host memory alone
};

// Thread safe. Status codes: DEADLINE is DeadlineExceeded, PEER_LOST Unavailable, ABORTED Aborted,
// CORRUPTED DataLoss, MISMATCH and INVALID_ARGUMENT InvalidArgument, RESOURCE ResourceExhausted,
// REFUSED FailedPrecondition. The message names the peer of the operation and, with "first
// failure:", what the transport saw first; a FaultInfo carries the reason and the suspected peer.
class Transport {
 public:
  // `table` must outlive the transport.
  static absl::StatusOr<std::unique_ptr<Transport>> Open(const annulusTransportV1* table,
                                                         const TransportOptions& options);
  // Two transports, `tables[level]` for the peers p with levels[p] == level; both outlive this and
  // have to know handles of zeros (abi_minor 2) and move one kind of memory in common, since what
  // comes from a peer goes on to another, else FAILED_PRECONDITION. `levels` in rank order, its own
  // rank's does not matter.
  static absl::StatusOr<std::unique_ptr<Transport>> OpenByLevel(
      const std::array<const annulusTransportV1*, 2>& tables,
      const std::vector<annulusLevel>& levels, const TransportOptions& options);
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  // Closes: aborts when operations are outstanding.
  ~Transport();

  // The name of the plugin that serves a peer.
  std::string_view NameTo(int32_t peer) const { return WireTo(peer).table->name; }

  const annulusTransportHandle& handle() const { return wires_.front().handle; }
  // Of the transport between nodes, where that is another one.
  std::optional<annulusTransportHandle> outer_handle() const;
  // Blocks until all peers are connected, or `deadline_ns` (CLOCK_MONOTONIC). `handles` in rank
  // order.
  absl::Status Connect(absl::Span<const annulusTransportHandle> handles, int64_t deadline_ns);
  // The same for both transports; the deadline is one for the two.
  absl::Status ConnectByLevel(absl::Span<const annulusTransportHandle> inner,
                              absl::Span<const annulusTransportHandle> outer, int64_t deadline_ns);

  // Whether RegisterMemory does anything. Transfers then name registered memory alone, on all
  // ranks.
  bool registers_memory() const;
  // With each transport that registers memory, before the connection or after. A failure leaves
  // it unknown which hold the memory: abort. `data` is what was registered; the memory stays until
  // it is deregistered or the transport is closed. Both block a second or so at most.
  absl::Status RegisterMemory(void* data, size_t bytes);
  absl::Status DeregisterMemory(void* data);

  // The memory of the segments belongs to the transport until the request is done.
  absl::StatusOr<Request> ISend(int32_t peer, uint64_t tag,
                                absl::Span<const annulusSegment> segments, int64_t deadline_ns);
  absl::StatusOr<Request> IRecv(int32_t peer, uint64_t tag,
                                absl::Span<const annulusSegment> segments, int64_t deadline_ns);
  // What is posted between the two may start together, and not before the end; nothing may be
  // waited for in between. No effect with a transport that has no groups.
  void BeginGroup();
  absl::Status EndGroup();
  // Blocks until all are done; their deadlines bound it. Completions in the order of `requests`.
  std::vector<Completion> Wait(absl::Span<const Request> requests);

  // From any thread: completes everything with ABORTED, here and at the peers.
  void Abort(const std::string& reason);

  // The first failure seen, in words; peer -1 and no text when there was none.
  struct LastError {
    std::string text;
    int32_t peer = -1;
  };
  LastError last_error() const;
  // Zeros from a plugin that does not count; sums over both transports.
  annulusTransportStats stats() const;
  // Whether segments may lie in the memory of the device that Open was told of, or in the host's.
  bool moves_device_memory() const { return AllHave(ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY); }
  bool moves_host_memory() const { return AllHave(ANNULUS_TRANSPORT_CAP_HOST_MEMORY); }
  std::string path(int32_t peer) const;

 private:
  // One transport opened.
  struct Wire {
    const annulusTransportV1* table = nullptr;
    annulusTransport* transport = nullptr;
    annulusTransportHandle handle{};

    bool HasGroups() const;
  };

  Transport() = default;
  absl::Status Add(const annulusTransportV1* table, const TransportOptions& options);
  const Wire& WireTo(int32_t peer) const;
  absl::Status ConnectWire(const Wire& wire, absl::Span<const annulusTransportHandle> handles,
                           int64_t deadline_ns);
  absl::Status ToStatus(annulusTransportStatus status, const std::string& what) const;
  bool AllHave(uint64_t cap) const;  // every transport of the group

  std::vector<Wire> wires_;           // one, or one for each level
  std::vector<annulusLevel> levels_;  // of each peer; empty: one wire serves all
  int32_t rank_ = 0;
};

}  // namespace annulus::transport
