// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrix products of bfloat16 with float32 sums, for processors that have instructions for them.
//
// Operands are words: two bfloat16 of the summed dimension, the first in the low half, carried as
// the bits of a float. The packed forms of tile.h hold words where they held floats, half as many.
// A word's two are neighbours, but for sums over keys: there word i of a panel of keys holds its
// keys i and i + half a panel, so that weights become words without changing lanes.
//
// Weights and score gradients, which are float32, are split in two: rounded to bfloat16, and what
// that left, rounded again. 16 bits are kept of each, for one product more; rounded once, they
// would leave an error of 1e-3 in float32 results.
//
// Right operands are columns and panels as tile.h has them. Left operands come in two forms:
//   pairs   for instructions that multiply one word with a vector of them (x86 AVX512_BF16,
//           vdpbf16ps). Words of neighbouring rows are neighbours:
//             strip    [words][rows]              the groups of tile.h
//             columns  [kQueryBlock / 2][kKeyTile]
//   tiles   for instructions that multiply matrices (x86 AMX, tdpbf16ps). Words of a row are
//           neighbours, and their number is a multiple of kTileWords:
//             strip    [rows][words]
//             columns  [kKeyTile][kQueryBlock / 2]
// Rows of weights lie kKeyTile floats apart in both: of each panel of keys its words,
// and after them their second words.

#include <cstdint>

#include "kernels/cpu/tile.h"

namespace annulus::kernels::cpu {

// How far the second words of columns lie after the first.
inline constexpr int64_t kSecondOfColumns = kQueryBlock / 2 * kKeyTile;

// The products for groups of one number of rows. All arrays are aligned as the packed forms are, or
// start whole words (tiles: whole kTileWords) into them. `b` is columns or one panel, [words][panel
// width].
struct Bf16Products {
  // Called on a thread before the products, and after them.
  void (*begin)();
  void (*end)();
  // scores[m * kKeyTile + j] = strip . columns for the columns [begin, end), whole panels.
  void (*strip_times_columns)(const float* strip, const float* columns, int64_t words,
                              int64_t begin, int64_t end, float* scores);
  // to[m * to_stride + n] = factor[m] * to[..] + sum over k < words, whole panels of keys, of
  //     word k of row m of `a` . panel[k * panel width + n]. No factor: `to` is not read.
  void (*rows_times_panel)(const float* a, const float* panel, int64_t words, const float* factor,
                           float* to, int64_t to_stride);
  // to[m * to_stride + n] = sum over k < words of a . panel, `a` a piece of the columns.
  void (*columns_times_panel)(const float* a, const float* panel, int64_t words, float* to,
                              int64_t to_stride);
  // Columns of words out of one group of rows, kKeyTile floats apart: word (row / 2, j) is
  // (matrix[row][j], matrix[row + 1][j]), split. `count` floats of each row, whole panels.
  void (*pack_columns)(const float* matrix, int64_t count, float* columns);
};

// Rows of a group and panel width of the native products; the width is that of Highway's AVX3.
inline constexpr int kNativePairRows = 12;
inline constexpr int kTileRows = 32;
inline constexpr int64_t kTileWords = 16;
inline constexpr int64_t kNativeBf16Panel = 32;
inline constexpr int64_t kNativeHalfPanel = kNativeBf16Panel / 2;

// The processor's own; null if it has none, or (tiles) if the system does not let it be used. The
// first call for tiles asks Linux for the use of their registers by this process.
const Bf16Products* NativeBf16Pairs();
const Bf16Products* NativeBf16Tiles();

// How bfloat16 tensors are multiplied. What the processor does not have is done as float32.
enum class Bf16Mode {
  kBest,           // whatever is fastest
  kConvert,        // as float32
  kPairs,          // natively
  kTiles,          // natively
  kEmulatedPairs,  // in plain C++: the slow twins
  kEmulatedTiles,
};
Bf16Mode CurrentBf16Mode();
// For tests and benchmarks. Not while a call runs.
void SetBf16Mode(Bf16Mode mode);

// The native products of the current mode, at most one of them.
struct ChosenBf16 {
  const Bf16Products* pairs = nullptr;
  const Bf16Products* tiles = nullptr;
};
ChosenBf16 ChooseNativeBf16();

// Their name, for SimdBf16Name.
const char* NativeBf16Name();

}  // namespace annulus::kernels::cpu
