// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "annulus/types.h"
#include "server/ring/plan.h"

namespace annulus::client {

// A run of bytes in the caller's memory.
struct Segment {
  uint8_t* data = nullptr;
  size_t bytes = 0;
};

// Where the rows of some tokens of a dense tensor lie, in the order in which they make up the dense
// tensor [batch, rows of the tokens, heads, head_dim] that travels. Neighbours are joined.
struct SegmentList {
  std::vector<Segment> segments;
  size_t bytes = 0;
};

// Row i of `view` holds the i-th token of `held`. INVALID_ARGUMENT if a token of `wanted` is not
// held; both lists are in ascending order of position within each range.
absl::StatusOr<SegmentList> SegmentsOf(const TensorView& view, const ring::TokenRanges& held,
                                       const ring::TokenRanges& wanted);

// Walks a list in pieces of any size. Not thread safe.
class SegmentCursor {
 public:
  explicit SegmentCursor(const SegmentList& list, size_t offset = 0);

  // The next run of at most `bytes_max` bytes; empty at the end.
  Segment Next(size_t bytes_max);
  size_t offset() const { return offset_; }

 private:
  const SegmentList& list_;
  size_t index_ = 0;
  size_t within_ = 0;
  size_t offset_ = 0;
};

}  // namespace annulus::client
