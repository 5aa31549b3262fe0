// SPDX-License-Identifier: Apache-2.0
#include "server/transport/transport.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/base/fault_info.h"
#include "server/base/status_macros.h"

namespace annulus::transport {
namespace {

constexpr uint32_t kMinorOfZeroHandles = 2;

absl::StatusCode CodeOf(annulusTransportStatus status) {
  switch (status) {
    case ANNULUS_TRANSPORT_OK:
      return absl::StatusCode::kOk;
    case ANNULUS_TRANSPORT_INVALID_ARGUMENT:
    case ANNULUS_TRANSPORT_MISMATCH:
      return absl::StatusCode::kInvalidArgument;
    case ANNULUS_TRANSPORT_DEADLINE:
      return absl::StatusCode::kDeadlineExceeded;
    case ANNULUS_TRANSPORT_PEER_LOST:
      return absl::StatusCode::kUnavailable;
    case ANNULUS_TRANSPORT_ABORTED:
      return absl::StatusCode::kAborted;
    case ANNULUS_TRANSPORT_CORRUPTED:
      return absl::StatusCode::kDataLoss;
    case ANNULUS_TRANSPORT_RESOURCE:
      return absl::StatusCode::kResourceExhausted;
    case ANNULUS_TRANSPORT_REFUSED:
      return absl::StatusCode::kFailedPrecondition;
    case ANNULUS_TRANSPORT_PENDING:
      break;
  }
  return absl::StatusCode::kInternal;
}

const char* ReasonFor(annulusTransportStatus status) {
  switch (status) {
    case ANNULUS_TRANSPORT_INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case ANNULUS_TRANSPORT_MISMATCH:
      return "BYTE_COUNT_MISMATCH";
    case ANNULUS_TRANSPORT_DEADLINE:
      return "TRANSFER_DEADLINE";
    case ANNULUS_TRANSPORT_PEER_LOST:
      return "PEER_LOST";
    case ANNULUS_TRANSPORT_ABORTED:
      return "TRANSPORT_ABORTED";
    case ANNULUS_TRANSPORT_CORRUPTED:
      return "DATA_CORRUPTED";
    case ANNULUS_TRANSPORT_RESOURCE:
      return "TRANSPORT_RESOURCE";
    case ANNULUS_TRANSPORT_REFUSED:
      return "CONNECTION_REFUSED";
    default:
      return "PLUGIN_ERROR";
  }
}

const char* WordsFor(annulusTransportStatus status) {
  switch (status) {
    case ANNULUS_TRANSPORT_INVALID_ARGUMENT:
      return "invalid argument";
    case ANNULUS_TRANSPORT_MISMATCH:
      return "the two sides named different byte counts";
    case ANNULUS_TRANSPORT_DEADLINE:
      return "not complete by its deadline";
    case ANNULUS_TRANSPORT_PEER_LOST:
      return "a peer is lost";
    case ANNULUS_TRANSPORT_ABORTED:
      return "aborted";
    case ANNULUS_TRANSPORT_CORRUPTED:
      return "damaged data";
    case ANNULUS_TRANSPORT_RESOURCE:
      return "out of memory, descriptors or queue entries";
    case ANNULUS_TRANSPORT_REFUSED:
      return "a peer refused to connect";
    default:
      return "unexpected status of the plugin";
  }
}

// Why `open` failed, where the plugin tells.
std::string OpenError(const annulusTransportV1* table) {
  const bool tells =
      table->struct_size >= offsetof(annulusTransportV1, open_error) + sizeof(table->open_error) &&
      table->open_error != nullptr && table->open_error()[0] != '\0';
  return tells ? std::string("; ") + table->open_error() : "";
}

std::string PeerWords(const char* direction, int32_t peer) {
  return std::string(direction) + " peer " + std::to_string(peer);
}

}  // namespace

Request::Request(Request&& other) noexcept
    : table_(other.table_), request_(std::exchange(other.request_, nullptr)) {}

Request& Request::operator=(Request&& other) noexcept {
  if (this != &other) {
    Reset();
    table_ = other.table_;
    request_ = std::exchange(other.request_, nullptr);
  }
  return *this;
}

void Request::Reset() {
  if (request_ != nullptr) table_->release(request_);
  request_ = nullptr;
}

bool Request::Done() const {
  int32_t done = 0;
  return table_->test(request_, &done, nullptr) != ANNULUS_TRANSPORT_OK || done != 0;
}

absl::StatusOr<std::unique_ptr<Transport>> Transport::Open(const annulusTransportV1* table,
                                                           const TransportOptions& options) {
  std::unique_ptr<Transport> transport(new Transport);
  ANNULUS_RETURN_IF_ERROR(transport->Add(table, options));
  return transport;
}

absl::StatusOr<std::unique_ptr<Transport>> Transport::OpenByLevel(
    const std::array<const annulusTransportV1*, 2>& tables, const std::vector<annulusLevel>& levels,
    const TransportOptions& options) {
  if (levels.size() != static_cast<size_t>(options.size)) {
    return absl::InvalidArgumentError("got " + std::to_string(levels.size()) +
                                      " levels of peers for a group of " +
                                      std::to_string(options.size));
  }
  constexpr uint64_t kMemories =
      ANNULUS_TRANSPORT_CAP_HOST_MEMORY | ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY;
  if ((tables[0]->caps & tables[1]->caps & kMemories) == 0) {
    return absl::FailedPreconditionError(
        std::string("transports ") + tables[0]->name + " and " + tables[1]->name +
        " cannot serve one group: expected both to move the host's memory or both the device's");
  }
  std::unique_ptr<Transport> transport(new Transport);
  for (const annulusTransportV1* table : tables) {
    if (table->abi_minor < kMinorOfZeroHandles) {
      return absl::FailedPreconditionError(std::string("transport ") + table->name +
                                           " has ABI minor " + std::to_string(table->abi_minor) +
                                           "; to serve one level of a group it needs " +
                                           std::to_string(kMinorOfZeroHandles));
    }
    ANNULUS_RETURN_IF_ERROR(transport->Add(table, options));
  }
  transport->levels_ = levels;
  return transport;
}

absl::Status Transport::Add(const annulusTransportV1* table, const TransportOptions& options) {
  annulusTransportOptions plain{};
  plain.struct_size = sizeof(plain);
  plain.group = options.group.c_str();
  plain.epoch = options.epoch;
  plain.rank = options.rank;
  plain.size = options.size;
  plain.host_id = options.host_id.c_str();
  plain.bind_address = options.bind_address.c_str();
  plain.peer_timeout_seconds = options.peer_timeout_seconds;
  plain.window_size = options.window_size;
  plain.device_ordinal = options.device_ordinal;
  Wire wire{.table = table};
  const annulusTransportStatus status = table->open(&plain, &wire.transport, &wire.handle);
  if (status != ANNULUS_TRANSPORT_OK) {
    return absl::Status(CodeOf(status), std::string("open transport ") + table->name + ", rank " +
                                            std::to_string(options.rank) + " of " +
                                            std::to_string(options.size) + " on " +
                                            options.bind_address + ": " + WordsFor(status) +
                                            OpenError(table));
  }
  rank_ = options.rank;
  wires_.push_back(wire);
  return absl::OkStatus();
}

Transport::~Transport() {
  for (const Wire& wire : wires_) wire.table->close(wire.transport);
}

std::optional<annulusTransportHandle> Transport::outer_handle() const {
  if (wires_.size() < 2) return std::nullopt;
  return wires_[ANNULUS_LEVEL_OUTER].handle;
}

const Transport::Wire& Transport::WireTo(int32_t peer) const {
  const auto index = static_cast<size_t>(peer);
  return index < levels_.size() ? wires_[levels_[index]] : wires_.front();
}

absl::Status Transport::ConnectWire(const Wire& wire,
                                    absl::Span<const annulusTransportHandle> handles,
                                    int64_t deadline_ns) {
  return ToStatus(wire.table->connect(wire.transport, handles.data(), deadline_ns), "connect");
}

absl::Status Transport::Connect(absl::Span<const annulusTransportHandle> handles,
                                int64_t deadline_ns) {
  return ConnectWire(wires_.front(), handles, deadline_ns);
}

absl::Status Transport::ConnectByLevel(absl::Span<const annulusTransportHandle> inner,
                                       absl::Span<const annulusTransportHandle> outer,
                                       int64_t deadline_ns) {
  const std::array<absl::Span<const annulusTransportHandle>, 2> given = {inner, outer};
  for (const annulusLevel level : {ANNULUS_LEVEL_INNER, ANNULUS_LEVEL_OUTER}) {
    if (wires_.size() < 2 || given[level].size() != levels_.size()) {
      return absl::InvalidArgumentError("connect: expected handles of " +
                                        std::to_string(levels_.size()) +
                                        " ranks for two transports");
    }
  }
  for (const annulusLevel level : {ANNULUS_LEVEL_INNER, ANNULUS_LEVEL_OUTER}) {
    std::vector<annulusTransportHandle> handles(given[level].begin(), given[level].end());
    for (size_t peer = 0; peer < handles.size(); ++peer) {
      if (static_cast<int32_t>(peer) != rank_ && levels_[peer] != level) handles[peer] = {};
    }
    ANNULUS_RETURN_IF_ERROR(ConnectWire(wires_[level], handles, deadline_ns));
  }
  return absl::OkStatus();
}

bool Transport::registers_memory() const {
  return std::any_of(wires_.begin(), wires_.end(),
                     [](const Wire& wire) { return wire.table->register_memory != nullptr; });
}

absl::Status Transport::RegisterMemory(void* data, size_t bytes) {
  for (const Wire& wire : wires_) {
    if (wire.table->register_memory == nullptr) continue;
    ANNULUS_RETURN_IF_ERROR(ToStatus(wire.table->register_memory(wire.transport, data, bytes),
                                     std::string("registering memory with ") + wire.table->name));
  }
  return absl::OkStatus();
}

absl::Status Transport::DeregisterMemory(void* data) {
  absl::Status first = absl::OkStatus();
  for (const Wire& wire : wires_) {
    if (wire.table->deregister_memory == nullptr) continue;
    first.Update(ToStatus(wire.table->deregister_memory(wire.transport, data),
                          std::string("deregistering memory with ") + wire.table->name));
  }
  return first;
}

absl::StatusOr<Request> Transport::ISend(int32_t peer, uint64_t tag,
                                         absl::Span<const annulusSegment> segments,
                                         int64_t deadline_ns) {
  annulusRequest* request = nullptr;
  const Wire& wire = WireTo(peer);
  const annulusTransportStatus status = wire.table->isend(
      wire.transport, peer, tag, segments.data(), segments.size(), deadline_ns, &request);
  if (status != ANNULUS_TRANSPORT_OK) return ToStatus(status, PeerWords("send to", peer));
  return Request(wire.table, request);
}

absl::StatusOr<Request> Transport::IRecv(int32_t peer, uint64_t tag,
                                         absl::Span<const annulusSegment> segments,
                                         int64_t deadline_ns) {
  annulusRequest* request = nullptr;
  const Wire& wire = WireTo(peer);
  const annulusTransportStatus status = wire.table->irecv(
      wire.transport, peer, tag, segments.data(), segments.size(), deadline_ns, &request);
  if (status != ANNULUS_TRANSPORT_OK) return ToStatus(status, PeerWords("receive from", peer));
  return Request(wire.table, request);
}

bool Transport::Wire::HasGroups() const {
  return table->struct_size >= offsetof(annulusTransportV1, group_end) + sizeof(void*) &&
         table->group_begin != nullptr && table->group_end != nullptr;
}

bool Transport::AllHave(uint64_t cap) const {
  return std::all_of(wires_.begin(), wires_.end(),
                     [cap](const Wire& wire) { return (wire.table->caps & cap) != 0; });
}

void Transport::BeginGroup() {
  for (const Wire& wire : wires_) {
    if (wire.HasGroups()) wire.table->group_begin(wire.transport);
  }
}

absl::Status Transport::EndGroup() {
  absl::Status first = absl::OkStatus();
  for (const Wire& wire : wires_) {  // every group that began ends
    if (!wire.HasGroups()) continue;
    first.Update(ToStatus(wire.table->group_end(wire.transport), "start of a group of transfers"));
  }
  return first;
}

std::vector<Completion> Transport::Wait(absl::Span<const Request> requests) {
  std::vector<Completion> completions(requests.size());
  // All have to end, so it does not matter which of two transports is waited for first.
  for (const Wire& wire : wires_) {
    // Two transports of one plugin wait together.
    if (&wire != &wires_.front() && wire.table == wires_.front().table) continue;
    std::vector<annulusRequest*> plain;
    std::vector<size_t> places;
    for (size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].table_ != wire.table) continue;
      plain.push_back(requests[i].request_);
      places.push_back(i);
    }
    if (plain.empty()) continue;
    std::vector<annulusCompletion> ends(plain.size());
    const annulusTransportStatus waited = wire.table->wait(plain.data(), plain.size(), ends.data());
    for (size_t i = 0; i < ends.size(); ++i) {
      const annulusTransportStatus status =
          waited == ANNULUS_TRANSPORT_OK ? ends[i].status : waited;
      completions[places[i]] = {ToStatus(status, PeerWords("transfer with", ends[i].peer)),
                                ends[i].peer, ends[i].start_ns, ends[i].end_ns, ends[i].bytes};
    }
  }
  return completions;
}

void Transport::Abort(const std::string& reason) {
  for (const Wire& wire : wires_) wire.table->abort(wire.transport, reason.c_str());
}

Transport::LastError Transport::last_error() const {
  LastError first;
  for (const Wire& wire : wires_) {
    std::array<char, 1024> text{};
    LastError error;
    wire.table->last_error(wire.transport, text.data(), text.size(), &error.peer);
    error.text = text.data();
    // What names a suspect says more than an abort that followed on it.
    if (first.text.empty() || (first.peer < 0 && error.peer >= 0)) first = error;
  }
  return first;
}

annulusTransportStats Transport::stats() const {
  annulusTransportStats sum{};
  sum.struct_size = sizeof(sum);
  for (const Wire& wire : wires_) {
    annulusTransportStats stats{};
    stats.struct_size = sizeof(stats);
    const bool known =
        wire.table->struct_size >= offsetof(annulusTransportV1, stats) + sizeof(wire.table->stats);
    if (known && wire.table->stats != nullptr) wire.table->stats(wire.transport, &stats);
    sum.sent_bytes += stats.sent_bytes;
    sum.received_bytes += stats.received_bytes;
    sum.refused_connections += stats.refused_connections;
    sum.stale_epoch += stats.stale_epoch;
    sum.corrupted += stats.corrupted;
  }
  return sum;
}

std::string Transport::path(int32_t peer) const {
  const Wire& wire = WireTo(peer);
  return wire.table->path(wire.transport, peer);
}

absl::Status Transport::ToStatus(annulusTransportStatus status, const std::string& what) const {
  if (status == ANNULUS_TRANSPORT_OK) return absl::OkStatus();
  std::string message = what + ": " + WordsFor(status);
  const LastError error = last_error();
  if (!error.text.empty()) message += "; first failure: " + error.text;
  FaultInfo info{.reason = ReasonFor(status)};
  if (error.peer >= 0) info.metadata["peer"] = std::to_string(error.peer);
  return WithFaultInfo(absl::Status(CodeOf(status), message), info);
}

}  // namespace annulus::transport
