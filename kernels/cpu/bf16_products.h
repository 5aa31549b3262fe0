// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrix products of bfloat16 with float32 sums, for processors that multiply pairs of bfloat16 in
// one instruction (x86 AVX512_BF16: vdpbf16ps), at twice the rate of float32.
//
// Operands are words: two bfloat16 that are neighbours along the summed dimension, the first in the
// low half, carried as the bits of a float. The packed forms of tile.h hold words where they held
// floats, half as many. Results are those of the float32 products but for the rounding of weights
// and score gradients to bfloat16.

#include <cstdint>

namespace annulus::kernels::cpu {

// The products for one size of register tile: `rows` rows by one panel. All arrays are aligned as
// the packed forms are, or start whole words into them.
struct Bf16Products {
  // scores[m * kKeyTile + j] = sum over k < words of strip[k * rows + m] . columns[..] for the
  // columns [begin, end), whole panels.
  void (*strip_times_columns)(const float* strip, const float* columns, int64_t words,
                              int64_t begin, int64_t end, float* scores);
  // to[m * to_stride + n] = factor[m] * to[..] + sum over k < words of
  //     a[m * kKeyTile + k] . panel[k * panel width + n]. No factor: `to` is not read.
  void (*rows_times_panel)(const float* a, const float* panel, int64_t words, const float* factor,
                           float* to, int64_t to_stride);
  // to[m * to_stride + n] = sum over k < words of a[m + k * kKeyTile] . panel[..].
  void (*columns_times_panel)(const float* a, const float* panel, int64_t words, float* to,
                              int64_t to_stride);
  // words[k] = (from[2k], from[2k + 1]), rounded to nearest even, in place; `count` floats, whole
  // panels, of which the first half becomes words.
  void (*pair_neighbours)(float* row, int64_t count);
  // words[j] = (low[j], high[j]), rounded to nearest even; `count` whole panels. `words` may be
  // `low`.
  void (*pair_rows)(const float* low, const float* high, int64_t count, float* words);
};

// Register tile of the native products: Highway's AVX3 shape.
inline constexpr int kNativeBf16Rows = 12;
inline constexpr int64_t kNativeBf16Panel = 32;

// The processor's own; null if it has none.
const Bf16Products* NativeBf16Products();

// How bfloat16 tensors are multiplied.
enum class Bf16Mode {
  kBest,      // natively where the processor can, else as float32
  kConvert,   // as float32
  kEmulated,  // as natively, in plain C++: the slow twin
};
Bf16Mode CurrentBf16Mode();
// For tests and benchmarks. Not while a call runs.
void SetBf16Mode(Bf16Mode mode);

}  // namespace annulus::kernels::cpu
