// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/row_map.h"

#include <algorithm>

namespace annulus::kernels::cpu {

void RowMap::Assign(const annulusSpan* spans, size_t span_count) {
  int64_t total = 0;
  for (size_t s = 0; s < span_count; ++s) total += spans[s].count;
  rows.resize(total);
  positions.resize(total);
  rising_ends.clear();
  int64_t begin = 0;
  for (size_t s = 0; s < span_count; ++s) {
    const annulusSpan& span = spans[s];
    if (span.count == 0) continue;
    if (begin > 0 && span.position <= positions[begin - 1]) rising_ends.push_back(begin);
    int64_t* const row = rows.data() + begin;
    int64_t* const position = positions.data() + begin;
    for (int64_t i = 0; i < span.count; ++i) row[i] = span.row + i;
    for (int64_t i = 0; i < span.count; ++i) position[i] = span.position + i * span.stride;
    begin += span.count;
  }
  if (total > 0) rising_ends.push_back(total);
}

void CutTiles(const RowMap& map, int64_t tile_rows, std::vector<IndexRange>* tiles) {
  tiles->clear();
  int64_t begin = 0;
  for (const int64_t end : map.rising_ends) {
    for (; begin < end; begin += tile_rows) {
      tiles->push_back({begin, std::min(begin + tile_rows, end)});
    }
    begin = end;
  }
}

IndexRange VisibleKeys(const annulusMask& mask, int64_t query_position,
                       const int64_t* key_positions, int64_t count) {
  if (count == 0) return {};
  const int64_t* const keys_end = key_positions + count;
  const int64_t last = query_position + mask.causal_offset;
  if (mask.kind == ANNULUS_MASK_CAUSAL && key_positions[0] > last) return {};
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

IndexRange VisibleKeys(const annulusMask& mask, int64_t query_position, const annulusSpan& keys) {
  const int64_t last = query_position + mask.causal_offset;
  // How many of the keys have a position below `position`.
  const auto keys_below = [&keys](int64_t position) {
    const int64_t distance = std::max<int64_t>(position - keys.position, 0);
    return std::min(distance / keys.stride + (distance % keys.stride != 0), keys.count);
  };
  IndexRange visible = {0, keys.count};
  if (mask.kind == ANNULUS_MASK_CAUSAL) visible.end = keys_below(last + 1);
  if (mask.window_left >= 0) visible.begin = keys_below(last - mask.window_left);
  return visible.begin < visible.end ? visible : IndexRange{0, 0};
}

bool VisibleKeysOfRows(const annulusMask& mask, const int64_t* query_positions, int64_t rows,
                       const int64_t* key_positions, int64_t count, IndexRange* visible) {
  // Both ends of what is seen rise with the position: the least and the greatest one tell of all.
  const auto [least, greatest] = std::minmax_element(query_positions, query_positions + rows);
  const IndexRange of_least = VisibleKeys(mask, *least, key_positions, count);
  const IndexRange of_greatest = VisibleKeys(mask, *greatest, key_positions, count);
  const bool none = mask.window_left < 0 && of_greatest.size() == 0;
  if (none || (of_least.size() == count && of_greatest.size() == count)) {
    std::fill(visible, visible + rows, of_greatest);
    return of_greatest.size() > 0;
  }
  bool any = false;
  for (int64_t i = 0; i < rows; ++i) {
    visible[i] = VisibleKeys(mask, query_positions[i], key_positions, count);
    any |= visible[i].size() > 0;
  }
  return any;
}

}  // namespace annulus::kernels::cpu
