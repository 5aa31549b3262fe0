// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/fault.h"

#include <cstdio>

namespace annulus::transport::nccl {
namespace {

constexpr std::string_view kBeginning = "nccl(";

// Only what a peer may say of itself is taken over; the rest is an abort.
annulusTransportStatus StatusOf(int status) {
  switch (status) {
    case ANNULUS_TRANSPORT_DEADLINE:
    case ANNULUS_TRANSPORT_PEER_LOST:
    case ANNULUS_TRANSPORT_CORRUPTED:
    case ANNULUS_TRANSPORT_RESOURCE:
    case ANNULUS_TRANSPORT_REFUSED:
      return static_cast<annulusTransportStatus>(status);
    default:
      return ANNULUS_TRANSPORT_ABORTED;
  }
}

}  // namespace

std::string EncodeFault(const Fault& fault) {
  return std::string(kBeginning) + std::to_string(fault.status) + "," +
         std::to_string(fault.suspect) + ") " + fault.text;
}

Fault DecodeFault(const Fault& seen) {
  const size_t at = seen.text.find(kBeginning);
  int status = 0;
  int suspect = 0;
  int length = 0;
  if (at == std::string::npos ||
      std::sscanf(seen.text.c_str() + at, "nccl(%d,%d) %n", &status, &suspect, &length) != 2) {
    return seen;
  }
  std::string before = seen.text.substr(0, at);  // "rank 2 reports: aborted: "
  const size_t word = before.rfind("aborted: ");
  if (word != std::string::npos) before.erase(word);
  return {StatusOf(status), suspect >= 0 ? suspect : seen.suspect,
          before + seen.text.substr(at + static_cast<size_t>(length))};
}

}  // namespace annulus::transport::nccl
