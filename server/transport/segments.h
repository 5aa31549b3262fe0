// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// Segments that one operation may name at most.
inline constexpr size_t kSegmentsMax = size_t{1} << 22;

// Sum of the segments' bytes, or nothing for a list that cannot be.
inline std::optional<uint64_t> TotalBytes(const annulusSegment* segments, size_t count) {
  if (count > kSegmentsMax || (count > 0 && segments == nullptr)) return std::nullopt;
  uint64_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    if (segments[i].bytes > 0 && segments[i].data == nullptr) return std::nullopt;
    if (segments[i].bytes > std::numeric_limits<uint64_t>::max() - total) return std::nullopt;
    total += segments[i].bytes;
  }
  return total;
}

}  // namespace annulus::transport
