// SPDX-License-Identifier: Apache-2.0
#include "server/transport/transport.h"

#include <array>
#include <utility>

#include "server/base/fault_info.h"

namespace annulus::transport {
namespace {

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
  annulusTransportOptions plain{};
  plain.struct_size = sizeof(plain);
  plain.group = options.group.c_str();
  plain.epoch = options.epoch;
  plain.rank = options.rank;
  plain.size = options.size;
  plain.host_id = options.host_id.c_str();
  plain.bind_address = options.bind_address.c_str();
  plain.peer_timeout_seconds = options.peer_timeout_seconds;
  annulusTransport* transport = nullptr;
  annulusTransportHandle handle{};
  const annulusTransportStatus status = table->open(&plain, &transport, &handle);
  if (status != ANNULUS_TRANSPORT_OK) {
    return absl::Status(CodeOf(status), std::string("open transport ") + table->name + ", rank " +
                                            std::to_string(options.rank) + " of " +
                                            std::to_string(options.size) + " on " +
                                            options.bind_address + ": " + WordsFor(status) +
                                            OpenError(table));
  }
  return std::unique_ptr<Transport>(new Transport(table, transport, handle));
}

Transport::~Transport() { table_->close(transport_); }

absl::Status Transport::Connect(absl::Span<const annulusTransportHandle> handles,
                                int64_t deadline_ns) {
  return ToStatus(table_->connect(transport_, handles.data(), deadline_ns), "connect");
}

absl::StatusOr<Request> Transport::ISend(int32_t peer, uint64_t tag,
                                         absl::Span<const annulusSegment> segments,
                                         int64_t deadline_ns) {
  annulusRequest* request = nullptr;
  const annulusTransportStatus status =
      table_->isend(transport_, peer, tag, segments.data(), segments.size(), deadline_ns, &request);
  if (status != ANNULUS_TRANSPORT_OK) return ToStatus(status, PeerWords("send to", peer));
  return Request(table_, request);
}

absl::StatusOr<Request> Transport::IRecv(int32_t peer, uint64_t tag,
                                         absl::Span<const annulusSegment> segments,
                                         int64_t deadline_ns) {
  annulusRequest* request = nullptr;
  const annulusTransportStatus status =
      table_->irecv(transport_, peer, tag, segments.data(), segments.size(), deadline_ns, &request);
  if (status != ANNULUS_TRANSPORT_OK) return ToStatus(status, PeerWords("receive from", peer));
  return Request(table_, request);
}

std::vector<Completion> Transport::Wait(absl::Span<const Request> requests) {
  std::vector<annulusRequest*> plain;
  plain.reserve(requests.size());
  for (const Request& request : requests) plain.push_back(request.request_);
  std::vector<annulusCompletion> ends(requests.size());
  const annulusTransportStatus waited = table_->wait(plain.data(), plain.size(), ends.data());
  std::vector<Completion> completions;
  completions.reserve(ends.size());
  for (const annulusCompletion& end : ends) {
    const annulusTransportStatus status = waited == ANNULUS_TRANSPORT_OK ? end.status : waited;
    completions.push_back({ToStatus(status, PeerWords("transfer with", end.peer)), end.peer,
                           end.start_ns, end.end_ns, end.bytes});
  }
  return completions;
}

void Transport::Abort(const std::string& reason) { table_->abort(transport_, reason.c_str()); }

Transport::LastError Transport::last_error() const {
  std::array<char, 1024> text{};
  LastError error;
  table_->last_error(transport_, text.data(), text.size(), &error.peer);
  error.text = text.data();
  return error;
}

annulusTransportStats Transport::stats() const {
  annulusTransportStats stats{};
  stats.struct_size = sizeof(stats);
  const bool known =
      table_->struct_size >= offsetof(annulusTransportV1, stats) + sizeof(table_->stats);
  if (known && table_->stats != nullptr) table_->stats(transport_, &stats);
  return stats;
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
