// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// Walks a gather or scatter list once, from front to back.
class SegmentCursor {
 public:
  SegmentCursor() = default;
  // `segments` must outlive the cursor and stay where it is.
  explicit SegmentCursor(const std::vector<annulusSegment>& segments) : segments_(&segments) {}

  // Appends the pieces of the next `bytes` bytes; no more than what is left may be taken.
  void Take(size_t bytes, std::vector<iovec>* pieces) {
    while (bytes > 0) {
      const annulusSegment& segment = (*segments_)[index_];
      const size_t piece = std::min(bytes, segment.bytes - used_);
      if (piece > 0) pieces->push_back({static_cast<uint8_t*>(segment.data) + used_, piece});
      bytes -= piece;
      used_ += piece;
      if (used_ == segment.bytes) {
        ++index_;
        used_ = 0;
      }
    }
  }

 private:
  const std::vector<annulusSegment>* segments_ = nullptr;
  size_t index_ = 0;
  size_t used_ = 0;
};

}  // namespace annulus::transport
