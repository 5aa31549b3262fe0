// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "server/transport/cuipc/pieces.h"
#include "server/transport/cuipc/slot_table.h"
#include "server/transport/transport_plugin.h"

// What the two sides of a transfer tell each other over the host transport: the receiver where the
// bytes go, the sender how it ended. Both records are kRecordBytes long, little-endian:
//
//   offer   0 magic "ANCO"  4 slot  8 generation  16 total bytes  24 piece count  32 pieces, where
//           there are at most kInlinePieces; more follow in a message of their own
//   answer  0 magic "ANCA"  4 status  8 start ns  16 end ns  24 bytes  32 length of the text  36
//   text
//
// A piece takes 24 bytes: allocation, offset, length. Decoding never reads past the record and
// never allocates for more pieces than a transfer may have.
namespace annulus::transport::cuipc {

inline constexpr size_t kRecordBytes = 248;
inline constexpr size_t kPieceBytes = 24;
inline constexpr size_t kInlinePieces = 9;
inline constexpr size_t kTextBytes = 200;

using Record = std::array<uint8_t, kRecordBytes>;

struct Offer {
  SlotTicket ticket;
  uint64_t total = 0;
  uint64_t piece_count = 0;
  std::vector<Piece> pieces;  // where they fit; otherwise empty

  bool operator==(const Offer&) const = default;
};

struct Answer {
  annulusTransportStatus status = ANNULUS_TRANSPORT_OK;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  uint64_t bytes = 0;  // that the sender holds
  std::string text;    // why not, in words; cut at kTextBytes

  bool operator==(const Answer&) const = default;
};

Record EncodeOffer(const Offer& offer);
// Nothing where the bytes are no offer.
std::optional<Offer> DecodeOffer(const Record& record);

Record EncodeAnswer(const Answer& answer);
std::optional<Answer> DecodeAnswer(const Record& record);

std::vector<uint8_t> EncodePieces(const std::vector<Piece>& pieces);
std::vector<Piece> DecodePieces(std::span<const uint8_t> bytes);

}  // namespace annulus::transport::cuipc
