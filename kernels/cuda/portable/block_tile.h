// SPDX-License-Identifier: Apache-2.0
#pragma once

// The common ground of the portable kernels: how 256 threads share a tile.
//
// A tile is kTileRows<kDim> rows of one head as floats in shared memory, padded with zero columns
// to kDim and with zero rows, and with a pitch of kDim + 1 so that 16 rows lie in 16 banks. Thread
// (y, x) = (thread / 16, thread % 16) owns rows y, y + 16, ... and columns x, x + 16, ... of every
// product, so that the 16 threads of a row are half a warp.
//
// `Thread` is what a kernel knows of its surroundings: on the device portable/device_thread.cuh,
// in tests an emulation of it on the host.
//   int thread() const; int64_t block() const; float* shared();
//   void Sync();                           all threads of the block
//   void SyncWarp();                       the 32 threads of the warp
//   float ShuffleXor(float value, int m);  the value of thread ^ m, m < 32

#include <cmath>
#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/tile_schedule.h"
#include "kernels/host_device.h"
#include "kernels/tensor_view.h"

namespace annulus::kernels::cuda {

inline constexpr int kBlockThreads = 256;
inline constexpr int kLanes = 16;  // threads of a row, and rows of a pass

template <int kDim>
inline constexpr int kTileRows = 4096 / kDim;  // 64, 32, 16
template <int kDim>
inline constexpr int kPitch = kDim + 1;
template <int kDim>
inline constexpr int kTileFloats = kTileRows<kDim>* kPitch<kDim>;
template <int kDim>
inline constexpr int kRowsEach = kTileRows<kDim> / kLanes;
template <int kDim>
inline constexpr int kColumnsEach = kDim / kLanes;

// A matrix of tile rows x tile rows: the weights of a pair of tiles.
template <int kDim>
inline constexpr int kWeightPitch = kTileRows<kDim> + 1;
template <int kDim>
inline constexpr int kWeightFloats = kTileRows<kDim>* kWeightPitch<kDim>;

// The products of kRowsEach rows with kRowsEach rows, or with the columns of one.
template <int kDim>
struct Scores {
  float at[kRowsEach<kDim>][kRowsEach<kDim>];
};
template <int kDim>
struct Output {
  float at[kRowsEach<kDim>][kColumnsEach<kDim>];
};

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

// Element i of a row of any dtype, exactly.
ANNULUS_KERNEL_INLINE float LoadElement(const void* row, annulusDtype dtype, int64_t i) {
  if (dtype == ANNULUS_F32) return static_cast<const float*>(row)[i];
  const uint16_t bits = static_cast<const uint16_t*>(row)[i];
  return dtype == ANNULUS_BF16 ? Bf16ToFloat(bits) : F16ToFloat(bits);
}

ANNULUS_KERNEL_INLINE void StoreElement(float value, void* row, annulusDtype dtype, int64_t i) {
  if (dtype == ANNULUS_F32) {
    static_cast<float*>(row)[i] = value;
  } else {
    static_cast<uint16_t*>(row)[i] = dtype == ANNULUS_BF16 ? FloatToBf16(value) : FloatToF16(value);
  }
}

// Fills the tile from rows tile.row + i of the tensor. Rows for which keep(i) is false are zero.
template <int kDim, class Thread, class Keep>
ANNULUS_KERNEL_INLINE void LoadTile(Thread& t, const annulusTensor& from, int64_t batch,
                                    int64_t head, const Tile& tile, Keep keep, float* shared) {
  for (int i = t.thread(); i < kTileRows<kDim> * kDim; i += kBlockThreads) {
    const int row = i / kDim;
    const int column = i % kDim;
    float value = 0.0f;
    if (row < tile.rows && column < from.head_dim && keep(row)) {
      value = LoadElement(RowPointer(from, batch, tile.row + row, head), from.dtype, column);
    }
    shared[row * kPitch<kDim> + column] = value;
  }
}

// scores[i][j] = a row (y + 16 i) . b row (x + 16 j)
template <int kDim>
ANNULUS_KERNEL_INLINE void RowProducts(const float* a, const float* b, int y, int x, int head_dim,
                                       Scores<kDim>& scores) {
  constexpr int kEach = kRowsEach<kDim>;
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) scores.at[i][j] = 0.0f;
  }
  for (int c = 0; c < head_dim; ++c) {
    float b_column[kEach];
    for (int j = 0; j < kEach; ++j) b_column[j] = b[(x + kLanes * j) * kPitch<kDim> + c];
    for (int i = 0; i < kEach; ++i) {
      const float a_element = a[(y + kLanes * i) * kPitch<kDim> + c];
      for (int j = 0; j < kEach; ++j) scores.at[i][j] += a_element * b_column[j];
    }
  }
}

// output[i] += sum over the rows r in visible[i] of weights[y + 16 i][r] * b row r. What is masked
// is never multiplied with, so that no NaN behind a mask gets through.
template <int kDim>
ANNULUS_KERNEL_INLINE void AddWeightedRows(const float* weights, const float* b,
                                           const Interval (&visible)[kRowsEach<kDim>], int y, int x,
                                           int rows, Output<kDim>& output) {
  for (int r = 0; r < rows; ++r) {
    float b_row[kColumnsEach<kDim>];
    for (int c = 0; c < kColumnsEach<kDim>; ++c) b_row[c] = b[r * kPitch<kDim> + x + kLanes * c];
    for (int i = 0; i < kRowsEach<kDim>; ++i) {
      if (!visible[i].Holds(r)) continue;
      const float weight = weights[(y + kLanes * i) * kWeightPitch<kDim> + r];
      for (int c = 0; c < kColumnsEach<kDim>; ++c) output.at[i][c] += weight * b_row[c];
    }
  }
}

template <int kDim>
ANNULUS_KERNEL_INLINE void StoreWeights(const Scores<kDim>& scores, int y, int x, float* weights) {
  for (int i = 0; i < kRowsEach<kDim>; ++i) {
    for (int j = 0; j < kRowsEach<kDim>; ++j) {
      weights[(y + kLanes * i) * kWeightPitch<kDim> + x + kLanes * j] = scores.at[i][j];
    }
  }
}

// Largest value of the 16 threads of a row. NaN is passed over: it shows in the sums.
template <class Thread>
ANNULUS_KERNEL_INLINE float RowMax(Thread& t, float value) {
  for (int m = 1; m < kLanes; m *= 2) {
    const float other = t.ShuffleXor(value, m);
    value = other > value ? other : value;
  }
  return value;
}

// Sum over `lanes` threads (16: a row, 32: a warp), in one order, the same in all of them.
template <class Thread>
ANNULUS_KERNEL_INLINE float LaneSum(Thread& t, float value, int lanes) {
  for (int m = 1; m < lanes; m *= 2) value += t.ShuffleXor(value, m);
  return value;
}

struct KeepAll {
  ANNULUS_HOST_DEVICE bool operator()(int) const { return true; }
};

}  // namespace annulus::kernels::cuda
