// SPDX-License-Identifier: Apache-2.0
#pragma once

// What each block of a persistent grid works on, as a function of its number.
//
// Units (a tile of queries of one head of one sequence) stand in a line: the query heads of one KV
// head next to one another, so that blocks in flight together read the same keys and values; within
// a section of KV heads whose keys and values fit the cache together, the last tiles first, which
// under a causal mask are the longest. Blocks take from the line in turns that run to and fro: the
// block that had the longest of one round has the shortest of the next.

#include <cstdint>

#include "kernels/host_device.h"

namespace annulus::kernels::cuda {

struct UnitOrder {
  int32_t tiles;
  int32_t heads_each;  // query heads of a KV head
  int32_t kv_heads;
  int32_t groups;   // batch * kv_heads
  int32_t section;  // groups of a section, 1 .. groups

  ANNULUS_HOST_DEVICE int32_t Units() const { return tiles * heads_each * groups; }
};

struct OrderedUnit {
  int32_t tile;
  int32_t head;
  int32_t kv_head;
  int32_t batch;
};

// 0 <= index < order.Units().
ANNULUS_KERNEL_INLINE OrderedUnit UnitAt(const UnitOrder& order, int32_t index) {
  const int32_t in_section = order.section * order.heads_each * order.tiles;
  const int32_t section = index / in_section;
  const int32_t left = order.groups - section * order.section;
  const int32_t groups = left < order.section ? left : order.section;
  const int32_t place = index - section * in_section;
  const int32_t tile = place / (groups * order.heads_each);
  const int32_t rest = place - tile * groups * order.heads_each;
  const int32_t group = section * order.section + rest / order.heads_each;
  const int32_t kv_head = group % order.kv_heads;
  return {order.tiles - 1 - tile, kv_head * order.heads_each + rest % order.heads_each, kv_head,
          group / order.kv_heads};
}

// The place in the line that a block takes in a round, rounds counted from 0; beyond the end in its
// last.
ANNULUS_KERNEL_INLINE int64_t IndexOfRound(int32_t round, int32_t block, int32_t blocks) {
  return int64_t{round} * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
}

}  // namespace annulus::kernels::cuda
