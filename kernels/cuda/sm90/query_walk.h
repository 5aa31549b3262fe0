// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which tiles of queries a tile of keys needs, from the last to the first: those that SeesNothing
// does not leave out, so that any two parties that ask agree on it. Tiles are those of the segment
// list: where sums are taken in turns, a turn belongs to a tile.

#include <cstdint>

#include "kernels/cuda/sm90/key_walk.h"
#include "kernels/cuda/tile_schedule.h"

namespace annulus::kernels::cuda {

// Of the tiles of a segment of queries, [begin, end) are needed; in [whole_begin, whole_end) every
// query is there and sees every key.
struct QueryTiles {
  int32_t begin;
  int32_t end;
  int32_t whole_begin;
  int32_t whole_end;
};

// FitsWalk(segment); `whole` false: no tile is seen whole, the keys do not fill theirs.
ANNULUS_KERNEL_INLINE QueryTiles QueryTilesOfSegment(const Segment& segment, int32_t tile_rows,
                                                     const annulusMask& mask, const Tile& keys,
                                                     bool whole) {
  const int64_t first = keys.position - mask.causal_offset;
  const int64_t last = keys.PositionOf(keys.rows - 1) - mask.causal_offset;
  const bool causal = mask.kind == ANNULUS_MASK_CAUSAL;
  const bool window = mask.window_left >= 0;
  const auto count = static_cast<int32_t>(segment.count);
  const int32_t begin = causal ? RowsBelow(segment, first) : 0;
  const int32_t end = window ? RowsBelow(segment, last + mask.window_left + 1) : count;
  if (begin == count) return {0, 0, 0, 0};
  QueryTiles tiles = {begin / tile_rows, (end + tile_rows - 1) / tile_rows, 0, 0};
  if (whole) {
    const int32_t whole_begin = causal ? RowsBelow(segment, last) : 0;
    const int32_t whole_end = window ? RowsBelow(segment, first + mask.window_left + 1) : count;
    tiles.whole_begin = (whole_begin + tile_rows - 1) / tile_rows;
    tiles.whole_end = whole_end / tile_rows;
  }
  return tiles;
}

// The other way round: of the tiles of a segment of keys, those from FirstKeyTile on and before
// EndKeyTile need the tile of queries.
ANNULUS_KERNEL_INLINE int32_t FirstKeyTile(const Segment& segment, int32_t tile_rows,
                                           const annulusMask& mask, const Tile& queries) {
  if (mask.window_left < 0) return 0;
  const int64_t seen = queries.position + mask.causal_offset - mask.window_left;
  const int32_t before = RowsBelow(segment, seen);
  return before < segment.count ? before / tile_rows : (before + tile_rows - 1) / tile_rows;
}
ANNULUS_KERNEL_INLINE int32_t EndKeyTile(const Segment& segment, int32_t tile_rows,
                                         const annulusMask& mask, const Tile& queries) {
  auto rows = static_cast<int32_t>(segment.count);
  if (mask.kind == ANNULUS_MASK_CAUSAL) {
    rows = RowsBelow(segment, queries.PositionOf(queries.rows - 1) + mask.causal_offset + 1);
  }
  return (rows + tile_rows - 1) / tile_rows;
}

// Of the queries that a key sees, as rows of the tile: FitsWalk's 31 bits, and no division of 64.
ANNULUS_KERNEL_INLINE Interval QueriesThatSee(const annulusMask& mask, int64_t key_position,
                                              const Tile& queries) {
  const Segment rows = {queries.row, queries.position, queries.stride, queries.rows, 0};
  const int64_t first = key_position - mask.causal_offset;
  return {mask.kind == ANNULUS_MASK_CAUSAL ? RowsBelow(rows, first) : 0,
          mask.window_left >= 0 ? RowsBelow(rows, first + mask.window_left + 1) : queries.rows};
}

// `keys_of()` gives the tile of keys: asked for at each segment, so that a warp with few registers
// need not keep it. The referenced objects outlive the walk; `full_tile`: as many keys as fill one.
template <class KeysOf>
class QueryWalk {
 public:
  ANNULUS_KERNEL_INLINE QueryWalk(const SegmentList& queries, const annulusMask& mask,
                                  int32_t full_tile, KeysOf keys_of)
      : queries_(queries),
        mask_(mask),
        full_tile_(full_tile),
        keys_of_(keys_of),
        segment_(queries.count) {}

  // Moves to the next tile; false after the last.
  ANNULUS_KERNEL_INLINE bool Next() {
    for (;;) {
      if (--tile_ >= tiles_.begin) return true;
      if (--segment_ < 0) return false;
      const Tile keys = keys_of_();
      tiles_ = QueryTilesOfSegment(queries_.segments[segment_], queries_.tile_rows, mask_, keys,
                                   keys.rows == full_tile_);
      tile_ = tiles_.end;
    }
  }

  // Of the tile that the walk is at: its number in the list, and whether it is seen whole.
  ANNULUS_KERNEL_INLINE int32_t tile() const {
    return static_cast<int32_t>(queries_.segments[segment_].first_tile) + tile_;
  }
  // Its first row in the tensor, and how many it has.
  ANNULUS_KERNEL_INLINE int32_t row() const {
    return static_cast<int32_t>(queries_.segments[segment_].row) + tile_ * queries_.tile_rows;
  }
  ANNULUS_KERNEL_INLINE int32_t rows() const {
    const auto count = static_cast<int32_t>(queries_.segments[segment_].count);
    const int32_t left = count - tile_ * queries_.tile_rows;
    return left < queries_.tile_rows ? left : queries_.tile_rows;
  }
  ANNULUS_KERNEL_INLINE bool IsWhole() const {
    return tile_ >= tiles_.whole_begin && tile_ < tiles_.whole_end;
  }

 private:
  const SegmentList& queries_;
  const annulusMask& mask_;
  const int32_t full_tile_;
  const KeysOf keys_of_;
  QueryTiles tiles_ = {0, 0, 0, 0};
  int32_t segment_;
  int32_t tile_ = 0;
};

}  // namespace annulus::kernels::cuda
