// SPDX-License-Identifier: Apache-2.0
#pragma once

// Sizes of the blocks that the CPU kernels work on, and the packed forms of them.
//
// A query block is kQueryBlock rows of one head (kBlockRows of arithmetic-inl.h backward), a key
// tile kKeyTile keys of one KV head; both are padded with zero rows to the full size. N is the
// panel width: two vectors of the instruction set in use (8, 16 or 32 floats), M the rows of a
// group that are multiplied together (6, 12 or 32). All block sizes are multiples of every N and M.
// Packed forms, 64-byte aligned, of float32, or of words in up to three pieces (bf16_products.h),
// half as many for each piece:
//   columns  [block / N][head_dim][N]           transposed: the B operand of  x . y^T
//   panels   [ceil(head_dim / N)][block][N]     the B operand of  p . x
//   strips   [block / M][head_dim][M]           transposed: the A operand of  x . y^T

#include <cstdint>

#include "kernels/head_dim.h"

namespace annulus::kernels::cpu {

inline constexpr int64_t kQueryBlock = 192;
inline constexpr int64_t kKeyTile = 288;
inline constexpr int64_t kPanelWidthMax = 32;
inline constexpr int64_t kGroupRowsMax = 32;

// For values and steps that are not negative.
constexpr int64_t CeilDiv(int64_t value, int64_t step) { return (value + step - 1) / step; }
constexpr int64_t RoundUp(int64_t value, int64_t step) { return CeilDiv(value, step) * step; }

// head_dim rounded up to whole panels of every width: the row length of outputs and sums.
constexpr int64_t PaddedHeadDim(int64_t head_dim) { return RoundUp(head_dim, kPanelWidthMax); }

// Floats of one block in any of the packed forms: at most three pieces of half as many words.
constexpr int64_t PackedFloats(int64_t block, int64_t head_dim) {
  return block * PaddedHeadDim(head_dim) / 2 * 3;
}
// Those of a row of scores or weights, against one key tile.
inline constexpr int64_t kScoreRowMax = kKeyTile / 2 * 3;

}  // namespace annulus::kernels::cpu
