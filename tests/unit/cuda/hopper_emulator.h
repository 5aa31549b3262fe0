// SPDX-License-Identifier: Apache-2.0
#pragma once

// A thread block of compute capability 9.0 on the host, strict where the hardware is silent. The
// warps run in an order drawn from a seed, each as far as it can. Everything asynchronous is late:
//   a load      its destination is NaN until somebody waits for its barrier, and lands then or
//   later a product   is done at the wait for it; its accumulators are NaN until then a bulk store
//   or sum   reads shared memory and writes global memory at the wait for it
// so that a wait that is missing, a stage that is overwritten too early, a wrong swizzle or a wrong
// descriptor gives a wrong result. What the manual forbids ends the program and says what: threads
// that part ways in a collective, a barrier counted wrongly, more registers than there are, data
// that is passed between threads' stores and the units without a fence, a deadlock (with what every
// warp waits for), anything that is left under way at the end.
//
// What it cannot show: the device's own rounding (fused multiply-adds, exp2), global memory shared
// by blocks but for words that are passed on, and time.

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/cuda/sm90/hopper_thread.h"
#include "tests/unit/cuda/fiber.h"
#include "tests/unit/cuda/hopper_matrix.h"
#include "tests/unit/cuda/hopper_memory.h"

namespace annulus::kernels::cuda {

class HopperEmulator;

// The `Thread` of kernels/cuda/sm90/hopper_thread.h.
class HopperThread {
 public:
  int thread() const { return thread_; }
  int warpgroup() const { return thread_ / kWarpgroupThreads; }
  int64_t block() const;
  int64_t blocks() const;
  uint32_t shared() const { return kSharedBase; }
  int Forgotten(int value) const { return value; }

  uint32_t LoadWord(uint32_t address) const;
  FourWords LoadFour(uint32_t address) const;
  void StoreWord(uint32_t address, uint32_t word);
  void StoreFour(uint32_t address, const FourWords& words);
  void StoreFloats(uint32_t address, float first, float second);

  void BarrierInit(uint32_t barrier, int arrivals);
  void FenceBarrierInit();
  void BarrierArrive(uint32_t barrier);
  void BarrierArriveExpect(uint32_t barrier, uint32_t bytes);
  void BarrierWait(uint32_t barrier, uint32_t parity);

  void PrefetchMap(const TensorMap&) {}
  void LoadPanel(const TensorMap& map, uint32_t barrier, uint32_t to, int column, int row, int head,
                 int batch);
  void StoreBulk(float* to, uint32_t from, uint32_t bytes) { IssueBulk(to, from, bytes, false); }
  void ReduceAddBulk(float* to, uint32_t from, uint32_t bytes) { IssueBulk(to, from, bytes, true); }
  void CommitBulk();
  template <int kLeft>
  void WaitBulk() {
    FinishBulk(kLeft);
  }
  void FenceAsync();

  int32_t TakeNumber(int32_t* counter) { return (*counter)++; }
  void Await(const int32_t* word, int32_t value);
  void PassOn(int32_t* word, int32_t value);

  void Sync();
  void NamedSync(int id, int threads) { NamedSyncOr(id, threads, false); }
  void NamedArrive(int id, int threads);
  bool NamedSyncOr(int id, int threads, bool flag);
  void SyncWarp() { AnyInWarp(false); }
  bool AnyInWarp(bool flag);
  bool ElectOne();
  template <int kRegisters>
  void IncreaseRegisters() {
    static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
    ChangeRegisters(kRegisters, true);
  }
  template <int kRegisters>
  void DecreaseRegisters() {
    static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
    ChangeRegisters(kRegisters, false);
  }
  float ShuffleXor(float value, int m) { return Shuffle(value, thread_ % 32 ^ m); }
  float ShuffleFrom(float value, int lane) { return Shuffle(value, lane); }

  float Exp2(float x) const;
  template <class Half>
  uint32_t RoundPair(float low, float high) const {
    return Half::FromFloat(low) | uint32_t{Half::FromFloat(high)} << 16;
  }
  template <class Half>
  uint32_t AddZeroTimes(uint32_t pair, uint32_t sum) const {
    const auto half = [](uint32_t a, uint32_t b) {
      return uint32_t{Half::FromFloat(Half::ToFloat(static_cast<uint16_t>(a)) * 0.0f +
                                      Half::ToFloat(static_cast<uint16_t>(b)))};
    };
    return half(pair, sum) | half(pair >> 16, sum >> 16) << 16;
  }

  template <class... Arrays>
  void MatrixFence(const Arrays&... registers) {
    (matrix().Fence(thread_ % kWarpgroupThreads, &registers, sizeof(registers)), ...);
  }
  template <class Half, int kColumns, Major kB>
  void MultiplyRegisters(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, bool add) {
    const MatrixOp op = {false, Half::kDtype, kColumns, true, Major::kDepth, kB, 0, b, add};
    matrix().Issue(thread_ % kWarpgroupThreads, op, d, a);
  }
  template <class Half, int kColumns, Major kA, Major kB>
  void MultiplyShared(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool add) {
    const MatrixOp op = {false, Half::kDtype, kColumns, false, kA, kB, a, b, add};
    matrix().Issue(thread_ % kWarpgroupThreads, op, d, nullptr);
  }
  void MatrixCommit() { matrix().Commit(thread_ % kWarpgroupThreads); }
  template <int kLeft, class... Arrays>
  void MatrixWait(const Arrays&... registers) {
    WaitForProducts(kLeft);
    (matrix().CheckDone(thread_ % kWarpgroupThreads, &registers, sizeof(registers)), ...);
  }

 private:
  friend class HopperEmulator;
  enum class Wait {
    kNothing,
    kOtherLanes,
    kOtherWarps,
    kNamedBarrier,
    kBarrier,
    kRegisters,
    kSharedWord,
    kOver
  };
  struct Bulk {
    float* to;
    uint32_t from;
    uint32_t bytes;
    bool add;
  };

  HopperMatrix& matrix();
  void Suspend(Wait wait, uint32_t what, uint32_t detail);
  float Shuffle(float value, int lane);
  void WaitForProducts(int commits_left);
  void ChangeRegisters(int registers, bool increase);
  void IssueBulk(float* to, uint32_t from, uint32_t bytes, bool add);
  void FinishBulk(size_t commits_left);

  HopperEmulator* emulator_ = nullptr;
  int thread_ = 0;
  Wait wait_ = Wait::kNothing;
  uint32_t wait_what_ = 0;  // the barrier, or the kind of collective
  uint32_t wait_detail_ = 0;
  const int32_t* awaited_word_ = nullptr;
  int32_t awaited_value_ = 0;
  int registers_ = 0;
  uint32_t elections_ = 0;
  std::vector<Bulk> bulk_;                       // not yet committed
  std::vector<std::vector<Bulk>> bulk_commits_;  // not yet done
  Fiber fiber_;
};

class HopperEmulator {
 public:
  // Threads a multiple of 128. The seed decides who runs when.
  HopperEmulator(int threads, uint32_t shared_bytes, uint32_t seed);

  // Runs the body for every thread of one block of a grid. Shared memory starts as NaN.
  void Run(int64_t block, int64_t blocks, const std::function<void(HopperThread&)>& body);

 private:
  friend class HopperThread;
  friend class HopperGrid;
  static constexpr int kWarpThreads = 32;
  static constexpr int kWarpsMax = 32;
  // What lanes or warps gather for.
  static constexpr uint32_t kShuffle = 1;
  static constexpr uint32_t kProducts = 2;   // and how many commits are left
  static constexpr int kNamedBarriers = 16;  // 0 is Sync; behind them, one for each warp
  static constexpr int kRegisterFile = 65536;

  // What the threads of a warp or a warpgroup come to together.
  struct Gathering {
    uint32_t kind = 0;
    int arrived = 0;
    uint32_t round = 0;
    std::vector<float> shown[2];  // by round
  };
  struct NamedBarrier {
    int threads = 0;
    int arrived = 0;
    uint32_t round = 0;
    bool any = false;
    bool result[2] = {};  // by round
    std::map<int, int> by_warp;
  };
  struct Barrier {
    int arrivals = 0;
    int missing = 0;
    int64_t bytes = 0;
    uint32_t phase = 0;
    int initialised_by = 0;
    bool fenced = false;
    int waiting = 0;  // threads
  };
  struct Load {
    TensorMap map;
    std::array<int, 4> at;
    uint32_t barrier;
    uint32_t to;
  };

  enum class Progress { kMoved, kStuck, kOver };

  void Start(int64_t block, int64_t blocks, const std::function<void(HopperThread&)>& body);
  void Reset();
  Progress Step();
  void RunWarp(int warp);
  void Land(size_t load);
  std::vector<size_t> LoadsWaitedFor() const;
  // True when this thread is the last; otherwise it was suspended until then.
  bool Gather(HopperThread& thread, Gathering& gathering, HopperThread::Wait wait, int size,
              uint32_t kind);
  void ArriveNamed(const HopperThread& thread, int id, int threads, bool flag);
  Barrier& BarrierAt(uint32_t address);
  void CheckPhase(uint32_t address, Barrier& barrier);
  // Threads that wait for this go on.
  void Wake(HopperThread::Wait wait, uint32_t what, int first, int count);
  [[noreturn]] void Deadlock() const;
  std::string WhatIsWaitedFor(int warp) const;
  void CheckEnd() const;

  std::vector<std::unique_ptr<HopperThread>> threads_;
  std::vector<int> runnable_;  // threads, by warp
  int over_ = 0;               // threads
  std::mt19937 rng_;
  uint32_t seed_;
  uint32_t shared_bytes_;
  int64_t block_ = 0;
  int64_t blocks_ = 0;
  std::unique_ptr<HopperMemory> memory_;
  std::vector<HopperMatrix> matrices_;  // by warpgroup
  std::vector<Gathering> of_warps_, of_warpgroups_;
  std::array<NamedBarrier, kNamedBarriers + kWarpsMax> named_;
  std::map<uint32_t, Barrier> barriers_;
  std::vector<Load> loads_;
  int free_registers_ = 0;
};

// Blocks of a grid that are there at the same time, as many as `resident`: which one goes on is
// drawn, and in which order blocks begin. With one they run one after the other, in order.
class HopperGrid {
 public:
  HopperGrid(int threads, uint32_t shared_bytes, uint32_t seed, int resident);

  void Run(int64_t blocks, const std::function<void(HopperThread&)>& body);

 private:
  std::vector<std::unique_ptr<HopperEmulator>> places_;
  uint32_t seed_;
};

}  // namespace annulus::kernels::cuda
