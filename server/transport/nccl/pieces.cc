// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/pieces.h"

#include <algorithm>

namespace annulus::transport::nccl {

std::vector<uint64_t> CommonPieces(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  std::vector<uint64_t> pieces;
  uint64_t left_a = 0;
  uint64_t left_b = 0;
  for (size_t i = 0, j = 0; i < a.size() || j < b.size() || left_a > 0;) {
    if (left_a == 0) left_a = a[i++];
    if (left_b == 0) left_b = b[j++];
    const uint64_t piece = std::min(left_a, left_b);
    pieces.push_back(piece);
    left_a -= piece;
    left_b -= piece;
  }
  return pieces;
}

std::vector<uint64_t> LengthsOf(const std::vector<annulusSegment>& segments) {
  std::vector<uint64_t> lengths;
  for (const annulusSegment& segment : segments) {
    if (segment.bytes > 0) lengths.push_back(segment.bytes);
  }
  return lengths;
}

bool PlacePieces(const std::vector<annulusSegment>& segments, const std::vector<uint64_t>& pieces,
                 std::vector<annulusSegment>* placed) {
  size_t at = 0;
  size_t used = 0;  // bytes of segments[at]
  for (const uint64_t piece : pieces) {
    while (at < segments.size() && used == segments[at].bytes) {
      ++at;
      used = 0;
    }
    if (at == segments.size() || piece > segments[at].bytes - used) return false;
    placed->push_back({static_cast<uint8_t*>(segments[at].data) + used, piece});
    used += piece;
  }
  for (; at < segments.size(); ++at, used = 0) {
    if (used != segments[at].bytes) return false;
  }
  return true;
}

}  // namespace annulus::transport::nccl
