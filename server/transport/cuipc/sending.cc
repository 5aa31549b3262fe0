// SPDX-License-Identifier: Apache-2.0
// A send: waits for the offer, takes leave to write, copies, answers. The answer leaves when the
// event behind the copies is reached, so a receiver that has it may use the bytes at once.
#include "server/base/status_macros.h"
#include "server/transport/cuipc/cuipc_transport.h"
#include "server/transport/cuipc/tags.h"

namespace annulus::transport::cuipc {

bool CuipcTransport::OnAwaitsOffer(Operation* operation) {
  annulusTransportStatus status{};
  if (!Take(&operation->offer, &status)) return false;
  std::optional<Offer> offer;
  if (status == ANNULUS_TRANSPORT_OK) {
    offer = DecodeOffer(operation->offer_record);
    if (!offer.has_value()) {
      SetError(operation->peer,
               "peer " + std::to_string(operation->peer) + " offered to receive in no known form");
      host_->abort(control_, "a malformed offer");
      status = ANNULUS_TRANSPORT_CORRUPTED;
    }
  } else if (status == ANNULUS_TRANSPORT_DEADLINE) {
    NoteLate(*operation);
  } else if (status == ANNULUS_TRANSPORT_INVALID_ARGUMENT) {
    SetError(operation->peer, "tag " + std::to_string(operation->tag) +
                                  " is already in use with peer " +
                                  std::to_string(operation->peer));
  }
  if (!offer.has_value()) {
    Conclude(operation, status, NowNs(), NowNs());
    return true;
  }
  operation->offered = *std::move(offer);
  if (operation->offered.piece_count <= kInlinePieces) {
    Match(operation);
    return true;
  }
  operation->stage = Operation::Stage::kAwaitsPieces;
  operation->piece_bytes.resize(operation->offered.piece_count * kPieceBytes);
  PostHost(operation, false, PiecesTag(operation->tag), operation->piece_bytes.data(),
           operation->piece_bytes.size(), &operation->pieces);
  return true;
}

bool CuipcTransport::OnAwaitsPieces(Operation* operation) {
  annulusTransportStatus status{};
  if (!Take(&operation->pieces, &status)) return false;
  if (status != ANNULUS_TRANSPORT_OK) {
    if (status == ANNULUS_TRANSPORT_DEADLINE) NoteLate(*operation);
    Conclude(operation, status, NowNs(), NowNs());
    return true;
  }
  operation->offered.pieces = DecodePieces(operation->piece_bytes);
  Match(operation);
  return true;
}

void CuipcTransport::Match(Operation* operation) {
  const uint64_t total = operation->placement.total;
  const Offer& offer = operation->offered;
  uint64_t wanted = 0;
  for (const Piece& piece : offer.pieces) wanted += piece.bytes;
  operation->ending = {ANNULUS_TRANSPORT_OK, NowNs(), 0, total, ""};
  if (wanted != offer.total || offer.total != total) {
    SetError(operation->peer, "tag " + std::to_string(operation->tag) + ": " +
                                  std::to_string(total) + " bytes to send, but peer " +
                                  std::to_string(operation->peer) + " receives " +
                                  std::to_string(offer.total));
    operation->ending.status = ANNULUS_TRANSPORT_MISMATCH;
    return Reply(operation);
  }
  bool withdrawn = false;
  const absl::Status started = StartCopies(operation, &withdrawn);
  if (withdrawn) {
    // The receive was late, or the transport fails and this side has not heard of it yet: which of
    // the two will be known by this operation's deadline, by an offer that does not come.
    operation->stage = Operation::Stage::kAwaitsOffer;
    PostHost(operation, false, OfferTag(operation->tag), operation->offer_record.data(),
             kRecordBytes, &operation->offer);
    return;
  }
  if (!started.ok()) OnCopyFailure(operation, started);
}

absl::Status CuipcTransport::StartCopies(Operation* operation, bool* withdrawn) {
  Peer& receiver = *peer(operation->peer);
  const Offer& offer = operation->offered;
  std::vector<uint64_t> from;
  for (const Piece& piece : operation->placement.pieces) {
    for (const Allocation& allocation : operation->placement.memory) {
      if (allocation.id == piece.memory) from.push_back(allocation.base);
    }
  }
  ANNULUS_ASSIGN_OR_RETURN(const std::vector<uint64_t> to, receiver.Resolve(offer.pieces));
  const std::vector<Copy> copies = CutCopies(operation->placement.pieces, from, offer.pieces, to);
  CopyDevice::Stream stream = nullptr;
  if (!copies.empty()) {
    ANNULUS_ASSIGN_OR_RETURN(stream, receiver.StreamFor());
    ANNULUS_ASSIGN_OR_RETURN(operation->copied, device_->CreateEvent());
  }
  // From here to the enqueueing there is nothing that could wait: see README, "The case that is
  // left".
  if (!receiver.slots().Take(offer.ticket)) {
    *withdrawn = true;
    return absl::OkStatus();
  }
  operation->stage = Operation::Stage::kCopying;
  receiver.BeginCopying();
  operation->ending.start_ns = NowNs();
  if (copies.empty()) return absl::OkStatus();
  const absl::Status enqueued = device_->Enqueue(copies, stream);
  if (!enqueued.ok()) operation->ending.status = ANNULUS_TRANSPORT_RESOURCE;
  operation->ending.text = std::string(enqueued.message());
  // Behind what was enqueued before a failure, too.
  if (const absl::Status marked = device_->Record(operation->copied, stream); !marked.ok()) {
    host_->abort(control_, "copies under way cannot be watched");
    OnCopiesUnknown(operation, ANNULUS_TRANSPORT_ABORTED, std::string(marked.message()));
  }
  return absl::OkStatus();
}

bool CuipcTransport::OnCopying(Operation* operation) {
  Peer& receiver = *peer(operation->peer);
  if (operation->copied != nullptr) {
    const absl::StatusOr<bool> reached = device_->Reached(operation->copied);
    if (!reached.ok()) {
      OnCopyFailure(operation, reached.status());
      return true;
    }
    const bool failed = cut_short_ || NowNs() >= operation->deadline_ns;
    if (!*reached && !GivesUp(operation, failed)) return false;
    if (!*reached) {
      OnCopiesUnknown(operation,
                      cut_short_ ? ANNULUS_TRANSPORT_ABORTED : ANNULUS_TRANSPORT_DEADLINE,
                      "not over a second after it failed");
      return true;
    }
  }
  receiver.slots().Finish(operation->offered.ticket);
  receiver.EndCopying();
  if (operation->ending.status == ANNULUS_TRANSPORT_OK) {
    operation->moved_bytes = operation->placement.total;
  } else {
    SetError(rank_,
             "copies to peer " + std::to_string(operation->peer) + ": " + operation->ending.text);
  }
  Reply(operation);
  return true;
}

// Completes an operation whose copies may still run. Neither its slot nor its place in the count of
// copies is given back: the receiver is not told that they are over, and nothing is unmapped.
void CuipcTransport::OnCopiesUnknown(Operation* operation, annulusTransportStatus status,
                                     const std::string& why) {
  NoteUnsafe(rank_, "copies to peer " + std::to_string(operation->peer) + ", tag " +
                        std::to_string(operation->tag) + ", may still run (" + why +
                        "): the memory of both ranks must not be used any more");
  Conclude(operation, status, operation->ending.start_ns, NowNs());
}

// The device has given up on the copies, or never began: nothing of this operation moves any more.
void CuipcTransport::OnCopyFailure(Operation* operation, const absl::Status& status) {
  if (operation->stage == Operation::Stage::kCopying) {
    peer(operation->peer)->slots().Finish(operation->offered.ticket);
    peer(operation->peer)->EndCopying();
  }
  operation->ending.status = ANNULUS_TRANSPORT_RESOURCE;
  operation->ending.text = std::string(status.message());
  SetError(rank_,
           "copies to peer " + std::to_string(operation->peer) + ": " + operation->ending.text);
  Reply(operation);
}

void CuipcTransport::Reply(Operation* operation) {
  operation->ending.end_ns = NowNs();
  operation->answer_record = EncodeAnswer(operation->ending);
  operation->stage = Operation::Stage::kAnswering;
  PostHost(operation, true, operation->tag, operation->answer_record.data(), kRecordBytes,
           &operation->answer);
}

bool CuipcTransport::OnAnswering(Operation* operation) {
  annulusTransportStatus status{};
  if (!Take(&operation->answer, &status)) return false;
  if (status == ANNULUS_TRANSPORT_DEADLINE) NoteLate(*operation);
  if (status == ANNULUS_TRANSPORT_OK) status = operation->ending.status;
  Conclude(operation, status, operation->ending.start_ns, operation->ending.end_ns);
  return true;
}

}  // namespace annulus::transport::cuipc
