// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport::nccl {

// Every send of NCCL needs its receive of the same length, but the two sides of a transfer cut the
// same bytes differently: both are cut wherever one of them is.

// Lengths of the pieces of two lists with the same sum, of lengths above zero.
std::vector<uint64_t> CommonPieces(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b);

// Lengths of the segments above zero.
std::vector<uint64_t> LengthsOf(const std::vector<annulusSegment>& segments);

// Where each piece lies. False when some piece crosses a border of a segment, or they are not as
// many bytes: then the two sides do not speak of the same transfer.
bool PlacePieces(const std::vector<annulusSegment>& segments, const std::vector<uint64_t>& pieces,
                 std::vector<annulusSegment>* placed);

}  // namespace annulus::transport::nccl
