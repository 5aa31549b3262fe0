// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/records.h"

#include <algorithm>
#include <cstring>

#include "server/transport/host/bytes.h"

namespace annulus::transport::cuipc {
namespace {

constexpr uint32_t kOfferMagic = 0x4F434E41;   // "ANCO"
constexpr uint32_t kAnswerMagic = 0x41434E41;  // "ANCA"
constexpr size_t kPiecesAt = 32;
constexpr size_t kTextAt = 36;
constexpr uint64_t kPiecesMax = uint64_t{1} << 22;
static_assert(kPiecesAt + kInlinePieces * kPieceBytes <= kRecordBytes);
static_assert(kTextAt + kTextBytes <= kRecordBytes);

void PutPiece(uint8_t* at, const Piece& piece) {
  PutField(at, 0, piece.memory);
  PutField(at, 8, piece.offset);
  PutField(at, 16, piece.bytes);
}

Piece GetPiece(const uint8_t* at) {
  return {GetField<uint64_t>(at, 0), GetField<uint64_t>(at, 8), GetField<uint64_t>(at, 16)};
}

}  // namespace

Record EncodeOffer(const Offer& offer) {
  Record record{};
  uint8_t* const at = record.data();
  PutField(at, 0, kOfferMagic);
  PutField(at, 4, offer.ticket.slot);
  PutField(at, 8, offer.ticket.generation);
  PutField(at, 16, offer.total);
  PutField(at, 24, offer.piece_count);
  for (size_t i = 0; i < offer.pieces.size(); ++i) {
    PutPiece(at + kPiecesAt + i * kPieceBytes, offer.pieces[i]);
  }
  return record;
}

std::optional<Offer> DecodeOffer(const Record& record) {
  const uint8_t* const at = record.data();
  if (GetField<uint32_t>(at, 0) != kOfferMagic) return std::nullopt;
  Offer offer;
  offer.ticket = {GetField<uint32_t>(at, 4), GetField<uint64_t>(at, 8)};
  offer.total = GetField<uint64_t>(at, 16);
  offer.piece_count = GetField<uint64_t>(at, 24);
  if (offer.ticket.slot >= kSlots || offer.piece_count > kPiecesMax) return std::nullopt;
  if (offer.piece_count > kInlinePieces) return offer;
  for (size_t i = 0; i < offer.piece_count; ++i) {
    offer.pieces.push_back(GetPiece(at + kPiecesAt + i * kPieceBytes));
  }
  return offer;
}

Record EncodeAnswer(const Answer& answer) {
  Record record{};
  uint8_t* const at = record.data();
  const auto text_bytes = static_cast<uint32_t>(std::min(answer.text.size(), kTextBytes));
  PutField(at, 0, kAnswerMagic);
  PutField(at, 4, static_cast<uint32_t>(answer.status));
  PutField(at, 8, answer.start_ns);
  PutField(at, 16, answer.end_ns);
  PutField(at, 24, answer.bytes);
  PutField(at, 32, text_bytes);
  std::copy_n(answer.text.data(), text_bytes, at + kTextAt);
  return record;
}

std::optional<Answer> DecodeAnswer(const Record& record) {
  const uint8_t* const at = record.data();
  const auto status = GetField<uint32_t>(at, 4);
  const auto text_bytes = GetField<uint32_t>(at, 32);
  if (GetField<uint32_t>(at, 0) != kAnswerMagic || status > ANNULUS_TRANSPORT_REFUSED ||
      status == ANNULUS_TRANSPORT_PENDING || text_bytes > kTextBytes) {
    return std::nullopt;
  }
  return Answer{static_cast<annulusTransportStatus>(status), GetField<int64_t>(at, 8),
                GetField<int64_t>(at, 16), GetField<uint64_t>(at, 24),
                std::string(reinterpret_cast<const char*>(at + kTextAt), text_bytes)};
}

std::vector<uint8_t> EncodePieces(const std::vector<Piece>& pieces) {
  std::vector<uint8_t> bytes(pieces.size() * kPieceBytes);
  for (size_t i = 0; i < pieces.size(); ++i) PutPiece(bytes.data() + i * kPieceBytes, pieces[i]);
  return bytes;
}

std::vector<Piece> DecodePieces(std::span<const uint8_t> bytes) {
  std::vector<Piece> pieces;
  pieces.reserve(bytes.size() / kPieceBytes);
  for (size_t at = 0; at + kPieceBytes <= bytes.size(); at += kPieceBytes) {
    pieces.push_back(GetPiece(bytes.data() + at));
  }
  return pieces;
}

}  // namespace annulus::transport::cuipc
