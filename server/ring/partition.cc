// SPDX-License-Identifier: Apache-2.0
#include "server/ring/partition.h"

#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

TokenRange Chunk(int64_t length, int chunks, int index) {
  return {length * index / chunks, length * (index + 1) / chunks, 1};
}

}  // namespace

std::vector<TokenRanges> Partition(Layout layout, int64_t length, int ranks) {
  std::vector<TokenRanges> owned(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    TokenRanges& tokens = owned[static_cast<size_t>(rank)];
    switch (layout) {
      case Layout::kContiguous:
        tokens = {Chunk(length, ranks, rank)};
        break;
      case Layout::kZigzag:
        tokens = {Chunk(length, 2 * ranks, rank), Chunk(length, 2 * ranks, 2 * ranks - 1 - rank)};
        break;
      case Layout::kStriped:
        tokens = {{rank, length, ranks}};
        break;
    }
    tokens = Normalise(std::move(tokens));
  }
  return owned;
}

}  // namespace annulus::ring
