// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrix products of bfloat16 with float32 sums, for processors that have instructions for them.
//
// A value that is not bfloat16 is split into pieces that are: rounded to it, what that left,
// rounded again, and what is left then. A float32 is its three pieces exactly (but for those below
// 2^-110, the last of which are denormal, and are zero). Weights and score gradients of bfloat16
// operands, whose products are taken rather than they, are two: 16 bits; one would leave an error
// of 1e-3 in float32 results.
// Of a product of split values, those of piece i and piece j are added for which i + j is less than
// the number of pieces of the one that has more, smallest first: what is left out of three by three
// is at most 2^-24 of the product, half a unit in the last place (Henry, Tang, Heinecke,
// "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations",
// arXiv 1904.06376).
//
// Operands are words: two bfloat16 of the summed dimension, the first in the low half, carried as
// the bits of a float. The packed forms of tile.h hold words where they held floats. After the
// first pieces of kNativePieceWords words come the second pieces of them, and the third; numbers of
// words count them all. Word i of a panel's worth of values, those of a head or keys or queries,
// holds the values i and i + half a panel, so that vectors become words without changing lanes;
// but words of a head that is bfloat16 are as it comes, its neighbours, and pairs take neighbouring
// queries.
//
// Right operands are columns and panels as tile.h has them. Left operands come in two forms:
//   pairs   for instructions that multiply one word with a vector of them (x86 AVX512_BF16,
//           vdpbf16ps). Words of neighbouring rows are neighbours:
//             strip    [words][rows]              the groups of tile.h
//             columns  [piece][kQueryBlock / 2][kKeyTile]
//   tiles   for instructions that multiply matrices (x86 AMX, tdpbf16ps). Words of a row are
//           neighbours, and their number is a multiple of kNativePieceWords:
//             strip    [rows][words]
//           Sums over queries are taken the other way round, dimensions by keys, so that nothing
//           need be transposed: left the dimensions, right the columns.
//             dimensions  [head_dim, zero up to whole kTileRows][words of kQueryBlock rows]
//             columns     [kKeyTile / panel width][words of kQueryBlock rows][panel width]
// Rows of weights are [words of kKeyTile keys] in both. Scores lie where their weights will: those
// of a panel of keys after one another, and free room after them for a third piece.

#include <cstdint>

#include "kernels/cpu/tile.h"

namespace annulus::kernels::cpu {

// Pieces of an operand as it is packed, and of the weights it is multiplied with.
constexpr int PiecesOfWeights(int pieces) { return pieces == 1 ? 2 : 3; }
inline constexpr int kPiecesOfFloat32 = 3;

// Words of `count` values, whole panels, in so many pieces.
constexpr int64_t WordsInPieces(int64_t count, int pieces) { return count / 2 * pieces; }

// How far the second pieces of columns in pairs lie after the first.
inline constexpr int64_t kSecondOfColumns = kQueryBlock / 2 * kKeyTile;

// The products for groups of one number of rows. All arrays are aligned as the packed forms are, or
// start whole words (tiles: whole kNativePieceWords) into them. Columns, or one panel, are
// [words][panel width]; `words` are theirs.
struct Bf16Products {
  // Called on a thread before the products, and after them.
  void (*begin)();
  void (*end)();
  // scores, where the weights of row m and column j will lie, = strip . columns for the columns
  // [begin, end), whole panels.
  void (*strip_times_columns)(const float* strip, const float* columns, int64_t words,
                              int64_t begin, int64_t end, float* scores);
  // to[m * to_stride + n] = factor[m] * to[..] + sum over k < words, whole panels of keys, of
  //     word k of row m of `a` . panel[k * panel width + n]. No factor: ones.
  void (*rows_times_panel)(const float* a, const float* panel, int64_t words, const float* factor,
                           float* to, int64_t to_stride);
  // to[m * to_stride + n] += sum over k < words, of queries, of a . panel. Pairs: a piece of the
  // columns by a panel of queries; tiles: dimensions by a panel of the columns.
  void (*sum_over_queries)(const float* a, const float* panel, int64_t words, float* to,
                           int64_t to_stride);
};

// Rows of a group and panel width of the native products; the width is that of Highway's AVX3.
inline constexpr int kNativePairRows = 12;
inline constexpr int kTileRows = 32;
inline constexpr int64_t kNativeBf16Panel = 32;
inline constexpr int64_t kNativePieceWords = kNativeBf16Panel / 2;

// The processor's own; null if it has none, or (tiles) if the system does not let it be used. The
// first call for tiles asks Linux for the use of their registers by this process.
const Bf16Products* NativeBf16Pairs();
const Bf16Products* NativeBf16Tiles();
const Bf16Products* NativeFloat32Tiles();  // of operands in three pieces

}  // namespace annulus::kernels::cpu
