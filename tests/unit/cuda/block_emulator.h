// SPDX-License-Identifier: Apache-2.0
#pragma once

// A thread block on the host: the body of a kernel runs once for each thread of the block, each on
// a stack of its own, one at a time, from barrier to barrier. A barrier that is missing shows as a
// wrong result, since a thread runs ahead of the others as far as it can; one that not all threads
// reach ends the program with what they wait for.
//
// What it cannot show: races between threads that no order of whole threads brings about, the
// device's own rounding (fused multiply-adds, exp2), and time.

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "tests/unit/cuda/fiber.h"

namespace annulus::kernels::cuda {

class BlockEmulator;

// The `Thread` of kernels/cuda/portable/block_tile.h.
class EmulatedThread {
 public:
  int thread() const { return thread_; }
  int64_t block() const;
  float* shared();
  void Sync();
  void SyncWarp();
  float ShuffleXor(float value, int m) { return Shuffle(value, thread_ ^ m); }
  float ShuffleFrom(float value, int lane) { return Shuffle(value, thread_ / 32 * 32 + lane); }
  bool SyncOr(bool flag);

  // The fragments of PTX's mma.m16n8k16 as its manual lays them out, one dot product an element.
  template <class Half>
  void Mma(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]);
  template <class Half>
  uint32_t RoundPair(float low, float high) const {
    return Half::FromFloat(low) | uint32_t{Half::FromFloat(high)} << 16;
  }

 private:
  friend class BlockEmulator;
  enum class State { kRunning, kAtWarpBarrier, kAtBlockBarrier, kDone };

  // What a thread shows to the others of its warp.
  using Words = std::array<uint32_t, 6>;

  void Yield(State state);
  // Shows the words; what all threads of the block last showed, of which the warp's are of now.
  const std::vector<Words>& Exchange(const Words& words);
  float Shuffle(float value, int from);

  BlockEmulator* emulator_ = nullptr;
  int thread_ = 0;
  State state_ = State::kRunning;
  uint32_t exchanges_ = 0;
  size_t votes_ = 0;
  Fiber fiber_;
};

class BlockEmulator {
 public:
  // Threads a multiple of 32.
  BlockEmulator(int threads, size_t shared_bytes);

  // Runs the body for every thread of one block. Shared memory starts as NaN.
  void Run(int64_t block, const std::function<void(EmulatedThread&)>& body);

 private:
  friend class EmulatedThread;
  static constexpr int kWarp = 32;

  static void Resume(EmulatedThread& thread);
  void RunWarp(int warp);

  std::vector<EmulatedThread> threads_;
  std::vector<float> shared_;
  // Two deep: a thread may be one exchange ahead of the others of its warp.
  std::vector<EmulatedThread::Words> exchange_[2];
  std::vector<char> votes_;  // of each SyncOr of this block so far
  int64_t block_ = 0;
};

template <class Half>
void EmulatedThread::Mma(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
  const std::vector<Words>& shown = Exchange({a[0], a[1], a[2], a[3], b[0], b[1]});
  const int warp = thread_ / 32 * 32;
  const int g = thread_ % 32 / 4;
  const int t = thread_ % 4;
  const auto element = [](uint32_t word, int k) {
    return Half::ToFloat(static_cast<uint16_t>(k % 2 == 0 ? word : word >> 16));
  };
  for (int i = 0; i < 4; ++i) {
    const int row = g + (i / 2) * 8;
    const int column = 2 * t + i % 2;
    for (int k = 0; k < 16; ++k) {
      const int place = k % 8 / 2;
      const Words& of_a = shown[warp + 4 * (row % 8) + place];
      const Words& of_b = shown[warp + 4 * column + place];
      c[i] += element(of_a[row / 8 + 2 * (k / 8)], k) * element(of_b[4 + k / 8], k);
    }
  }
}

}  // namespace annulus::kernels::cuda
