// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
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
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  // Closes: aborts when operations are outstanding.
  ~Transport();

  const annulusTransportHandle& handle() const { return handle_; }
  // Blocks until all peers are connected, or `deadline_ns` (CLOCK_MONOTONIC). `handles` in rank
  // order.
  absl::Status Connect(absl::Span<const annulusTransportHandle> handles, int64_t deadline_ns);

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
  // Zeros from a plugin that does not count.
  annulusTransportStats stats() const;
  // Whether segments may lie in the memory of the device that Open was told of, or in the host's.
  bool moves_device_memory() const {
    return (table_->caps & ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY) != 0;
  }
  bool moves_host_memory() const { return (table_->caps & ANNULUS_TRANSPORT_CAP_HOST_MEMORY) != 0; }
  std::string path(int32_t peer) const { return table_->path(transport_, peer); }

 private:
  Transport(const annulusTransportV1* table, annulusTransport* transport,
            const annulusTransportHandle& handle)
      : table_(table), transport_(transport), handle_(handle) {}
  absl::Status ToStatus(annulusTransportStatus status, const std::string& what) const;
  bool HasGroups() const;

  const annulusTransportV1* const table_;
  annulusTransport* const transport_;
  const annulusTransportHandle handle_;
};

}  // namespace annulus::transport
