// SPDX-License-Identifier: Apache-2.0
#pragma once

// Spans, spelled out: which row of a tensor holds which position, and which keys of a tile a query
// may see. Once spelled out, any layout (contiguous, zigzag, striped) looks the same to a kernel.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/compute_plugin.h"

namespace annulus::kernels::cpu {

// The rows named by a list of spans, in the order of the list.
struct RowMap {
  std::vector<int64_t> rows;
  std::vector<int64_t> positions;
  // Where runs of strictly rising positions end, in order; the last one is size().
  std::vector<int64_t> rising_ends;

  int64_t size() const { return static_cast<int64_t>(rows.size()); }
  // Replaces the contents; keeps the capacity. Strides are >= 1.
  void Assign(const annulusSpan* spans, size_t span_count);
};

// Half-open range of indices into a RowMap.
struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// Cuts the map into tiles of at most `tile_rows` within which positions rise strictly, so that the
// keys any query may see are one interval of the tile. Replaces `tiles`.
void CutTiles(const RowMap& map, int64_t tile_rows, std::vector<IndexRange>* tiles);

// The interval [begin, end) of `count` rising key positions that the query at `query_position`
// may see under the mask; {0, 0} when there is none.
IndexRange VisibleKeys(const annulusMask& mask, int64_t query_position,
                       const int64_t* key_positions, int64_t count);

// The same of a span's keys, counted from its first.
IndexRange VisibleKeys(const annulusMask& mask, int64_t query_position, const annulusSpan& keys);

// The same for each of `rows` queries, at least one. False when all are empty;
// `visible` is then not to be read.
bool VisibleKeysOfRows(const annulusMask& mask, const int64_t* query_positions, int64_t rows,
                       const int64_t* key_positions, int64_t count, IndexRange* visible);

}  // namespace annulus::kernels::cpu
