// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which rows a block works on and what they may see: spans cut into tiles, and the mask of a pair
// of tiles. Host and device run the same code.
//
// A tile never crosses a span, so its positions are affine: row i holds position + i * stride.
// Of a tile of keys the ones that a query may see are therefore one interval, and the other way
// round, whatever the layout (contiguous, zigzag, striped) of the shard.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/host_device.h"

namespace annulus::kernels::cuda {

// A span of compute_plugin.h, and how many tiles the segments before it have.
struct Segment {
  int64_t row;
  int64_t position;
  int64_t stride;
  int64_t count;
  int64_t first_tile;
};

// As many as the parameters of a kernel hold for queries and keys together (4 KiB). A call with
// more spans takes more launches.
inline constexpr int kSegmentsMax = 32;

// Passed by value to kernels. Segments are never empty.
struct SegmentList {
  Segment segments[kSegmentsMax];
  int64_t tiles;
  int32_t count;
  int32_t tile_rows;
};

// `rows` rows of a tensor from `row` on; 1 <= rows <= tile_rows.
struct Tile {
  int64_t row;
  int64_t position;
  int64_t stride;
  int32_t rows;

  ANNULUS_HOST_DEVICE int64_t PositionOf(int64_t i) const { return position + i * stride; }
};

// 0 <= index < list.tiles.
ANNULUS_HOST_DEVICE inline Tile TileAt(const SegmentList& list, int64_t index) {
  int low = 0;
  int high = list.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (list.segments[middle].first_tile <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const Segment& segment = list.segments[low];
  const int64_t first = (index - segment.first_tile) * list.tile_rows;
  const int64_t left = segment.count - first;
  return {segment.row + first, segment.position + first * segment.stride, segment.stride,
          static_cast<int32_t>(left < list.tile_rows ? left : list.tile_rows)};
}

// Half-open range of the rows of a tile; begin == end == 0 when empty.
struct Interval {
  int32_t begin;
  int32_t end;

  ANNULUS_HOST_DEVICE bool Holds(int32_t i) const { return begin <= i && i < end; }
  ANNULUS_HOST_DEVICE bool Empty() const { return begin >= end; }
};

// floor(a / b), b >= 1.
ANNULUS_HOST_DEVICE inline int64_t FloorDivide(int64_t a, int64_t b) {
  if (b == 1) return a;
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}

// The rows of the tile with low <= position <= high.
ANNULUS_HOST_DEVICE inline Interval RowsBetween(const Tile& tile, int64_t low, int64_t high) {
  int64_t begin = -FloorDivide(tile.position - low, tile.stride);
  int64_t end = FloorDivide(high - tile.position, tile.stride) + 1;
  begin = begin < 0 ? 0 : begin;
  end = end > tile.rows ? tile.rows : end;
  if (begin >= end) return {0, 0};
  return {static_cast<int32_t>(begin), static_cast<int32_t>(end)};
}

// Beyond every position that is accepted, and far from overflow.
inline constexpr int64_t kPositionEnd = int64_t{1} << 60;

// The keys of the tile that the query may see.
ANNULUS_HOST_DEVICE inline Interval VisibleKeys(const annulusMask& mask, int64_t query_position,
                                                const Tile& keys) {
  const int64_t last = query_position + mask.causal_offset;
  const int64_t low = mask.window_left >= 0 ? last - mask.window_left : -kPositionEnd;
  const int64_t high = mask.kind == ANNULUS_MASK_CAUSAL ? last : kPositionEnd;
  return RowsBetween(keys, low, high);
}

// The queries of the tile that may see the key.
ANNULUS_HOST_DEVICE inline Interval VisibleQueries(const annulusMask& mask, int64_t key_position,
                                                   const Tile& queries) {
  const int64_t first = key_position - mask.causal_offset;
  const int64_t low = mask.kind == ANNULUS_MASK_CAUSAL ? first : -kPositionEnd;
  const int64_t high = mask.window_left >= 0 ? first + mask.window_left : kPositionEnd;
  return RowsBetween(queries, low, high);
}

// Whether a tile of keys can be left out for a whole tile of queries: true only if no query sees a
// key. (Of two strided tiles the reverse need not hold.)
ANNULUS_HOST_DEVICE inline bool SeesNothing(const annulusMask& mask, const Tile& queries,
                                            const Tile& keys) {
  const int64_t first_limit = queries.position + mask.causal_offset;
  const int64_t last_limit = queries.PositionOf(queries.rows - 1) + mask.causal_offset;
  const bool after = mask.kind == ANNULUS_MASK_CAUSAL && keys.position > last_limit;
  const bool before =
      mask.window_left >= 0 && keys.PositionOf(keys.rows - 1) < first_limit - mask.window_left;
  return after || before;
}

// What one block of a grid works on: a tile of one head of one sequence of the batch. Heads follow
// one another, so that blocks in flight together share keys and values in the cache.
struct WorkUnit {
  int64_t tile;
  int64_t head;
  int64_t batch;
};

ANNULUS_HOST_DEVICE inline WorkUnit UnitOfBlock(int64_t block, int64_t heads, int64_t batches) {
  const int64_t rest = block % (heads * batches);
  return {block / (heads * batches), rest % heads, rest / heads};
}

}  // namespace annulus::kernels::cuda
