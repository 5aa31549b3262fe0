// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which tiles of keys a tile of queries needs, in the order in which they are taken: first those of
// which some query sees only a part, then those that every query sees whole. Host and device, and
// there the warps that load and the warps that compute, walk the same way.
//
// A tile of keys starts where the first of them is seen and ends wherever kWalkKeys rows later are;
// it may reach beyond its segment, and is then one of the first kind. Arithmetic is 32 bits wide
// where it divides: FitsWalk says which segments it is for.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/tile_schedule.h"
#include "kernels/host_device.h"

namespace annulus::kernels::cuda {

inline constexpr int kWalkKeys = 128;  // rows of a tile of keys

// Positions of the segment span less than 2^31, and rows are counted in 31 bits.
ANNULUS_HOST_DEVICE inline bool FitsWalk(const Segment& segment) {
  constexpr int64_t kLimit = (int64_t{1} << 31) - 1 - kWalkKeys;
  return segment.stride <= kLimit && segment.count <= kLimit / segment.stride &&
         segment.row <= kLimit - segment.count;
}

// How many rows of the segment lie at positions below the limit.
ANNULUS_KERNEL_INLINE int32_t RowsBelow(const Segment& segment, int64_t limit) {
  const int64_t distance = limit - segment.position;
  if (distance <= 0) return 0;
  if (distance > (segment.count - 1) * segment.stride) return static_cast<int32_t>(segment.count);
  const auto near = static_cast<uint32_t>(distance);
  const auto stride = static_cast<uint32_t>(segment.stride);
  return static_cast<int32_t>(stride == 1 ? near : (near + stride - 1) / stride);
}

// The positions that a query may see: from `begin` on, before `end`.
struct SeenPositions {
  int64_t begin;
  int64_t end;
};
ANNULUS_KERNEL_INLINE SeenPositions PositionsSeen(const annulusMask& mask, int64_t query_position) {
  const int64_t last = query_position + mask.causal_offset;
  return {mask.window_left >= 0 ? last - mask.window_left : -kPositionEnd,
          mask.kind == ANNULUS_MASK_CAUSAL ? last + 1 : kPositionEnd};
}

// Tiles 0 .. tiles - 1 of a segment, of which [full_begin, full_end) are seen whole.
struct SegmentTiles {
  int32_t first_row;  // of the segment
  int32_t tiles;
  int32_t full_begin;
  int32_t full_end;
};

ANNULUS_KERNEL_INLINE SegmentTiles TilesOfSegment(const Segment& segment, const annulusMask& mask,
                                                  const Tile& queries) {
  const SeenPositions first = PositionsSeen(mask, queries.position);
  const SeenPositions last = PositionsSeen(mask, queries.PositionOf(queries.rows - 1));
  const int32_t begin = RowsBelow(segment, first.begin);
  const int32_t end = RowsBelow(segment, last.end);
  if (end <= begin) return {0, 0, 0, 0};
  const int32_t whole_begin = RowsBelow(segment, last.begin) - begin;
  const int32_t whole_end = RowsBelow(segment, first.end) - begin;
  SegmentTiles tiles = {begin, (end - begin + kWalkKeys - 1) / kWalkKeys, 0, 0};
  if (whole_end >= kWalkKeys) {
    tiles.full_begin = (whole_begin + kWalkKeys - 1) / kWalkKeys;
    tiles.full_end = whole_end / kWalkKeys;
  }
  if (tiles.full_end <= tiles.full_begin) tiles.full_begin = tiles.full_end = 0;
  return tiles;
}

struct KeyCount {
  int32_t partial;
  int32_t full;
};

ANNULUS_KERNEL_INLINE KeyCount CountKeyTiles(const SegmentList& keys, const annulusMask& mask,
                                             const Tile& queries) {
  KeyCount count = {0, 0};
  for (int i = 0; i < keys.count; ++i) {
    const SegmentTiles tiles = TilesOfSegment(keys.segments[i], mask, queries);
    count.full += tiles.full_end - tiles.full_begin;
    count.partial += tiles.tiles - (tiles.full_end - tiles.full_begin);
  }
  return count;
}

// Both referenced objects outlive the walk.
class KeyWalk {
 public:
  ANNULUS_KERNEL_INLINE KeyWalk(const SegmentList& keys, const annulusMask& mask,
                                const Tile& queries)
      : keys_(keys), mask_(mask), queries_(queries) {}

  // Moves to the next tile that is seen in part; false after the last.
  ANNULUS_KERNEL_INLINE bool NextPartial() {
    ++tile_;
    for (;;) {
      if (tile_ >= tiles_.full_begin && tile_ < tiles_.full_end) tile_ = tiles_.full_end;
      if (tile_ < tiles_.tiles) return true;
      if (!NextSegment()) return false;
      tile_ = 0;
    }
  }
  // After NextPartial returned false: the same for those that are seen whole.
  ANNULUS_KERNEL_INLINE bool NextFull() {
    ++tile_;
    for (;;) {
      if (tile_ < tiles_.full_end) return true;
      if (!NextSegment()) return false;
      tile_ = tiles_.full_begin;
    }
  }

  // Of the tile that the walk is at: its first row in the tensor, and the rows of it that a query
  // sees, as rows of the tile.
  ANNULUS_KERNEL_INLINE int32_t row() const {
    return static_cast<int32_t>(keys_.segments[segment_].row) + FirstRow();
  }
  ANNULUS_KERNEL_INLINE Interval RowsSeen(int64_t query_position) const {
    const SeenPositions seen = PositionsSeen(mask_, query_position);
    const Segment& segment = keys_.segments[segment_];
    return {RowsBelow(segment, seen.begin) - FirstRow(), RowsBelow(segment, seen.end) - FirstRow()};
  }

 private:
  ANNULUS_KERNEL_INLINE int32_t FirstRow() const { return tiles_.first_row + tile_ * kWalkKeys; }
  // After the last it is before the first again.
  ANNULUS_KERNEL_INLINE bool NextSegment() {
    if (++segment_ < keys_.count) {
      tiles_ = TilesOfSegment(keys_.segments[segment_], mask_, queries_);
      return true;
    }
    segment_ = -1;
    tiles_ = {0, 0, 0, 0};
    tile_ = -1;
    return false;
  }

  const SegmentList& keys_;
  const annulusMask& mask_;
  const Tile& queries_;
  SegmentTiles tiles_ = {0, 0, 0, 0};
  int32_t segment_ = -1;
  int32_t tile_ = -1;
};

}  // namespace annulus::kernels::cuda
