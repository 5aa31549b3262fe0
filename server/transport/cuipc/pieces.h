// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/transport/cuipc/copy_device.h"
#include "server/transport/transport_plugin.h"

namespace annulus::transport::cuipc {

// `bytes` bytes of one allocation, `offset` bytes from its start.
struct Piece {
  uint64_t memory = 0;  // Allocation::id
  uint64_t offset = 0;
  uint64_t bytes = 0;

  bool operator==(const Piece&) const = default;
};

// Where the segments of an operation lie.
struct Placement {
  bool on_device = true;           // where there are no bytes at all, too
  uint64_t total = 0;              // bytes
  std::vector<Piece> pieces;       // on the device: no empty ones, neighbours joined
  std::vector<Allocation> memory;  // each that the pieces name, once
};

// Finds the allocations that segments lie in. INVALID_ARGUMENT: a null pointer, host and device
// memory in one operation, memory that the device does not take, more segments than there can be.
absl::StatusOr<Placement> Place(CopyDevice* device, const annulusSegment* segments, size_t count);

// Copies that move the bytes of `from`, in order, into `to`, cut where either list is. `from` and
// `to` hold as many bytes; an address is that of the piece's allocation, by position in the list.
std::vector<Copy> CutCopies(const std::vector<Piece>& from, const std::vector<uint64_t>& from_base,
                            const std::vector<Piece>& to, const std::vector<uint64_t>& to_base);

}  // namespace annulus::transport::cuipc
