// SPDX-License-Identifier: Apache-2.0
// A receive: tells the peer where the bytes go and waits for its answer. Whatever else happens, it
// is not over while the peer may write.
#include "server/transport/cuipc/cuipc_transport.h"
#include "server/transport/cuipc/tags.h"

namespace annulus::transport::cuipc {

bool CuipcTransport::OnSharing(Operation* operation) {
  Peer& sender = *peer(operation->peer);
  const Placement& placement = operation->placement;
  if (operation->answer == nullptr) {
    if (!receiving_.emplace(operation->peer, operation->tag).second) {
      SetError(operation->peer, "tag " + std::to_string(operation->tag) +
                                    " is already in use with peer " +
                                    std::to_string(operation->peer));
      Conclude(operation, ANNULUS_TRANSPORT_INVALID_ARGUMENT, NowNs(), NowNs());
      return true;
    }
    // First what ends the operation, whatever becomes of the rest.
    if (!PostHost(operation, false, operation->tag, operation->answer_record.data(), kRecordBytes,
                  &operation->answer)) {
      return true;
    }
    const absl::Status shared = sender.Share(placement.memory);
    const std::optional<SlotTicket> ticket = shared.ok() ? sender.slots().Offer() : std::nullopt;
    if (!ticket.has_value()) {
      SetError(rank_, shared.ok() ? "too many receives at a time" : std::string(shared.message()));
      host_->abort(control_, "a receive cannot be offered to its sender");
      receiving_.erase({operation->peer, operation->tag});
      Conclude(operation, ANNULUS_TRANSPORT_RESOURCE, NowNs(), NowNs());
      return true;
    }
    operation->ticket = *ticket;
  }
  if (!sender.Flush() && NowNs() < operation->deadline_ns && !cut_short_) return false;
  operation->stage = Operation::Stage::kOffered;
  Offer offer{operation->ticket, placement.total, placement.pieces.size(), {}};
  if (offer.piece_count <= kInlinePieces) offer.pieces = placement.pieces;
  operation->offer_record = EncodeOffer(offer);
  if (!PostHost(operation, true, OfferTag(operation->tag), operation->offer_record.data(),
                kRecordBytes, &operation->offer)) {
    return true;
  }
  if (offer.piece_count <= kInlinePieces) return true;
  operation->piece_bytes = EncodePieces(placement.pieces);
  PostHost(operation, true, PiecesTag(operation->tag), operation->piece_bytes.data(),
           operation->piece_bytes.size(), &operation->pieces);
  return true;
}

bool CuipcTransport::OnOffered(Operation* operation) {
  annulusTransportStatus status{};
  if (!Take(&operation->answer, &status)) return false;
  const std::optional<Answer> answer = DecodeAnswer(operation->answer_record);
  if (status == ANNULUS_TRANSPORT_OK && answer.has_value()) {
    operation->ending = *answer;
    if (answer->status == ANNULUS_TRANSPORT_OK) operation->moved_bytes = operation->placement.total;
    NoteReceive(*operation, *answer);
    peer(operation->peer)->slots().Return(operation->ticket);  // the sender is through with it
    OnReceiveEnd(operation, answer->status);
    return true;
  }
  if (status == ANNULUS_TRANSPORT_OK) {
    SetError(operation->peer, "peer " + std::to_string(operation->peer) + " sent tag " +
                                  std::to_string(operation->tag) + " without an answer's form");
    host_->abort(control_, "a malformed answer");
    status = ANNULUS_TRANSPORT_CORRUPTED;
  }
  if (status == ANNULUS_TRANSPORT_DEADLINE) NoteLate(*operation);
  operation->ending = {status, NowNs(), NowNs(), 0, ""};
  if (peer(operation->peer)->slots().Withdraw(operation->ticket)) {
    peer(operation->peer)->slots().Return(operation->ticket);
    OnReceiveEnd(operation, status);
    return true;
  }
  operation->stage = Operation::Stage::kQuieting;
  return true;
}

bool CuipcTransport::OnQuieting(Operation* operation) {
  Peer& sender = *peer(operation->peer);
  if (sender.slots().Finished(operation->ticket)) {
    sender.slots().Return(operation->ticket);
  } else if (!sender.side().peer_ended()) {
    if (!GivesUp(operation, true)) return false;
    NoteUnsafe(operation->peer,
               "peer " + std::to_string(operation->peer) +
                   " did not confirm that its copies are over: the memory of tag " +
                   std::to_string(operation->tag) +
                   " must not be used before that process has ended");
  }
  operation->ending.end_ns = NowNs();
  OnReceiveEnd(operation, operation->ending.status);
  return true;
}

void CuipcTransport::OnReceiveEnd(Operation* operation, annulusTransportStatus status) {
  receiving_.erase({operation->peer, operation->tag});
  Conclude(operation, status, operation->ending.start_ns, operation->ending.end_ns);
}

void CuipcTransport::NoteReceive(const Operation& operation, const Answer& answer) {
  if (answer.status == ANNULUS_TRANSPORT_OK) return;
  const std::string where = "tag " + std::to_string(operation.tag) + ": ";
  if (answer.status == ANNULUS_TRANSPORT_MISMATCH) {
    SetError(operation.peer, where + std::to_string(operation.placement.total) +
                                 " bytes to receive, but peer " + std::to_string(operation.peer) +
                                 " sends " + std::to_string(answer.bytes));
  } else {
    SetError(operation.peer,
             where + "peer " + std::to_string(operation.peer) + " says: " + answer.text);
  }
}

}  // namespace annulus::transport::cuipc
