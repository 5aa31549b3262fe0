// SPDX-License-Identifier: Apache-2.0
#pragma once

// The SIMD half of the forward pass: one query block of one head against packed key tiles. Which
// blocks, in what order and on what thread is forward.cc's business. The functions here run the
// version for the best instruction set of the processor; packed data are only valid for it.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/multiplier.h"

namespace annulus::kernels::cpu {

// A packed key tile: K as columns, V as panels (tile.h).
struct KeyTile {
  float* k_columns = nullptr;
  float* v_panels = nullptr;
  const int64_t* positions = nullptr;  // rising strictly
  int64_t count = 0;
  bool v_finite = true;  // no NaN or infinity in V: a weight of zero may be multiplied with it
};

// Fills tile->k_columns, v_panels and v_finite, for the arithmetic that is chosen. `staging`:
// kKeyTile * PaddedHeadDim(head_dim) floats.
void PackKeyTile(const HeadRows& k, const HeadRows& v, const ArithmeticChoice& choice,
                 float* staging, KeyTile* tile);

// Scratch of one thread; pointers to 64-byte aligned floats.
struct ForwardScratch {
  float* staging;   // kKeyTile * PaddedHeadDim(head_dim)
  float* q_strips;  // PackedFloats(kQueryBlock, head_dim)
  float* scores;    // kGroupRowsMax * kScoreRowMax
  float* output;    // kQueryBlock * PaddedHeadDim(head_dim)
};

// (o, lse) of `q.count` <= kQueryBlock rows <- merged with the attention over the tiles. Rows that
// may see no key of any tile keep their bytes.
struct ForwardBlock {
  HeadRows q;
  HeadRows o;  // float32
  HeadStat lse;
  const int64_t* q_positions;
  annulusMask mask;
  float softmax_scale;
  ArithmeticChoice choice;  // as the tiles were packed
  const KeyTile* tiles;
  int64_t tile_count;
};
void AttendBlock(const ForwardBlock& block, const ForwardScratch& scratch);

// Name of the instruction set in use: "AVX3", "AVX2", "SSE4", "EMU128", ...
const char* SimdTargetName();
// Whether it, the processor and the system have what the multiplier needs.
bool RunsMultiplier(Multiplier multiplier);

}  // namespace annulus::kernels::cpu
