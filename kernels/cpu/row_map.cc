// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/row_map.h"

#include <algorithm>

namespace annulus::kernels::cpu {

void RowMap::Assign(const annulusSpan* spans, size_t span_count) {
  rows.clear();
  positions.clear();
  for (size_t s = 0; s < span_count; ++s) {
    for (int64_t i = 0; i < spans[s].count; ++i) {
      rows.push_back(spans[s].row + i);
      positions.push_back(spans[s].position + i * spans[s].stride);
    }
  }
}

void CutTiles(const RowMap& map, int64_t tile_rows, std::vector<IndexRange>* tiles) {
  tiles->clear();
  for (int64_t begin = 0; begin < map.size();) {
    int64_t end = begin + 1;
    while (end < map.size() && end - begin < tile_rows &&
           map.positions[end] > map.positions[end - 1]) {
      ++end;
    }
    tiles->push_back({begin, end});
    begin = end;
  }
}

IndexRange VisibleKeys(const annulusMask& mask, int64_t query_position,
                       const int64_t* key_positions, int64_t count) {
  if (count == 0) return {};
  const int64_t* const keys_end = key_positions + count;
  const int64_t last = query_position + mask.causal_offset;
  // Most tiles are seen whole or not at all; only the others are worth a search.
  IndexRange visible = {0, count};
  if (mask.kind == ANNULUS_MASK_CAUSAL && keys_end[-1] > last) {
    visible.end = std::upper_bound(key_positions, keys_end, last) - key_positions;
  }
  if (mask.window_left >= 0 && key_positions[0] < last - mask.window_left) {
    visible.begin =
        std::lower_bound(key_positions, keys_end, last - mask.window_left) - key_positions;
  }
  return visible.begin < visible.end ? visible : IndexRange{0, 0};
}

}  // namespace annulus::kernels::cpu
