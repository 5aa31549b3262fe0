// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/pieces.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/transport/segments.h"

namespace annulus::transport::cuipc {
namespace {

bool Holds(const Allocation& allocation, uint64_t address) {
  return address >= allocation.base && address - allocation.base < allocation.bytes;
}

void Append(const Allocation& allocation, uint64_t address, uint64_t bytes, Placement* placement) {
  const Piece piece{allocation.id, address - allocation.base, bytes};
  if (!placement->pieces.empty()) {
    Piece& last = placement->pieces.back();
    if (last.memory == piece.memory && last.offset + last.bytes == piece.offset) {
      last.bytes += bytes;
      return;
    }
  }
  placement->pieces.push_back(piece);
}

const Allocation* Known(const std::vector<Allocation>& memory, uint64_t address) {
  // The last one found is the likely one.
  for (auto at = memory.rbegin(); at != memory.rend(); ++at) {
    if (Holds(*at, address)) return &*at;
  }
  return nullptr;
}

// Adds a segment of device memory, which may lie across allocations that are mapped side by side.
absl::Status PlaceOnDevice(CopyDevice* device, uint64_t address, uint64_t bytes,
                           Placement* placement) {
  while (bytes > 0) {
    const Allocation* allocation = Known(placement->memory, address);
    if (allocation == nullptr) {
      ANNULUS_ASSIGN_OR_RETURN(Allocation found, device->Find(PointerTo(address)));
      if (!found.on_device || !Holds(found, address)) {
        return absl::InvalidArgumentError("a segment of device memory ends beyond its allocation");
      }
      placement->memory.push_back(found);
      allocation = &placement->memory.back();
    }
    const uint64_t here = std::min(bytes, allocation->base + allocation->bytes - address);
    Append(*allocation, address, here, placement);
    address += here;
    bytes -= here;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Placement> Place(CopyDevice* device, const annulusSegment* segments, size_t count) {
  if (count > kSegmentsMax || (count > 0 && segments == nullptr)) {
    return absl::InvalidArgumentError(absl::StrCat(count, " segments"));
  }
  Placement placement;
  size_t host_segments = 0;
  size_t filled_segments = 0;
  for (size_t i = 0; i < count; ++i) {
    const annulusSegment& segment = segments[i];
    if (segment.bytes == 0) continue;
    if (segment.data == nullptr) return absl::InvalidArgumentError("a segment without memory");
    if (segment.bytes > std::numeric_limits<uint64_t>::max() - placement.total) {
      return absl::InvalidArgumentError("more bytes than there can be");
    }
    placement.total += segment.bytes;
    ++filled_segments;
    const auto address = reinterpret_cast<uint64_t>(segment.data);
    if (Known(placement.memory, address) == nullptr) {
      ANNULUS_ASSIGN_OR_RETURN(Allocation found, device->Find(segment.data));
      if (!found.on_device) {
        ++host_segments;
        continue;
      }
      placement.memory.push_back(found);
    }
    ANNULUS_RETURN_IF_ERROR(PlaceOnDevice(device, address, segment.bytes, &placement));
  }
  if (host_segments > 0 && host_segments < filled_segments) {
    return absl::InvalidArgumentError("host and device memory in one operation");
  }
  placement.on_device = host_segments == 0;
  return placement;
}

std::vector<Copy> CutCopies(const std::vector<Piece>& from, const std::vector<uint64_t>& from_base,
                            const std::vector<Piece>& to, const std::vector<uint64_t>& to_base) {
  std::vector<Copy> copies;
  size_t source = 0;
  uint64_t read = 0;  // bytes of from[source] that are dealt with
  for (size_t target = 0; target < to.size(); ++target) {
    for (uint64_t written = 0; written < to[target].bytes;) {
      const uint64_t bytes = std::min(from[source].bytes - read, to[target].bytes - written);
      copies.push_back({PointerTo(to_base[target] + to[target].offset + written),
                        PointerTo(from_base[source] + from[source].offset + read), bytes});
      written += bytes;
      read += bytes;
      if (read == from[source].bytes) {
        ++source;
        read = 0;
      }
    }
  }
  return copies;
}

}  // namespace annulus::transport::cuipc
