// SPDX-License-Identifier: Apache-2.0
#pragma once

// A thread block on the host: the body of a kernel runs once for each thread of the block, each on
// a stack of its own, one at a time, from barrier to barrier. A barrier that is missing shows as a
// wrong result, since a thread runs ahead of the others as far as it can; one that not all threads
// reach ends the program with what they wait for.
//
// What it cannot show: races between threads that no order of whole threads brings about, the
// device's own rounding (fused multiply-adds, exp2), and time.

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

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
  float ShuffleXor(float value, int m);

 private:
  friend class BlockEmulator;
  enum class State { kRunning, kAtWarpBarrier, kAtBlockBarrier, kDone };

  void Yield(State state);

  BlockEmulator* emulator_ = nullptr;
  int thread_ = 0;
  State state_ = State::kRunning;
  uint32_t shuffles_ = 0;
  bool started_ = false;
  ucontext_t start_ = {};
  jmp_buf resume_ = {};
  std::unique_ptr<char[]> stack_;
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

  static void Enter(unsigned high, unsigned low);
  void Resume(EmulatedThread& thread);
  void RunWarp(int warp);

  std::vector<EmulatedThread> threads_;
  std::vector<float> shared_;
  // Two exchanges deep: a thread may be one shuffle ahead of the others of its warp.
  std::vector<float> exchange_[2];
  jmp_buf scheduler_ = {};
  const std::function<void(EmulatedThread&)>* body_ = nullptr;
  int64_t block_ = 0;
};

}  // namespace annulus::kernels::cuda
