// SPDX-License-Identifier: Apache-2.0
#pragma once

// The matrix unit of one emulated warpgroup. A product is only noted down when it is issued; it is
// done in order at the wait that asks for it, from what shared memory and registers hold then.
// Until then its accumulators are NaN. Descriptors are decoded bit by bit.

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <vector>

#include "kernels/cuda/sm90/hopper_thread.h"
#include "tests/unit/cuda/hopper_memory.h"

namespace annulus::kernels::cuda {

// What all threads of a warpgroup must agree on.
struct MatrixOp {
  bool commit = false;
  annulusDtype dtype = ANNULUS_BF16;
  int columns = 0;
  bool a_in_registers = false;
  Major a_major = Major::kDepth;
  Major b_major = Major::kDepth;
  uint64_t a = 0;
  uint64_t b = 0;
  bool add = false;

  bool operator==(const MatrixOp&) const = default;
};

class HopperMatrix {
 public:
  explicit HopperMatrix(const HopperMemory* memory) : memory_(memory) {}

  // `thread` of the group, 0 .. 127. The registers stay where they are until the wait.
  void Fence(int thread, const void* registers, size_t bytes);
  void Issue(int thread, const MatrixOp& op, float* d, const uint32_t* a);
  void Commit(int thread);
  // All threads of the group have come to the wait; does what is to be done.
  void WaitForAllBut(int commits_left);
  // Ends the program if the accumulator is still at work.
  void CheckDone(int thread, const void* registers, size_t bytes) const;
  // Ends the program if something is left undone.
  void CheckIdle() const;

 private:
  struct Accumulator {
    std::array<float*, kWarpgroupThreads> d = {};
    int columns = 0;
    std::vector<float> values;  // 64 x columns
    int at_work = 0;
  };
  struct Issued {
    MatrixOp op;
    Accumulator* accumulator = nullptr;
    std::array<const uint32_t*, kWarpgroupThreads> a = {};
    std::vector<std::array<uint32_t, 4>> a_then;  // as issued
  };
  struct Fenced {
    const char* registers;
    std::vector<char> content;
  };

  Issued& Next(int thread, const MatrixOp& op);
  Accumulator* AccumulatorOf(int thread, const MatrixOp& op, float* d);
  void TakeAccumulator(int thread, float* d, Accumulator& accumulator);
  void CheckFenced(int thread, const void* registers, size_t bytes) const;
  void CheckOperand(uint64_t descriptor, Major major, int outer) const;
  void ReadOperand(uint64_t descriptor, Major major, int outers, annulusDtype dtype,
                   float* to) const;
  void Multiply(const Issued& issued);
  void ReadRegistersOfA(const Issued& issued, float* to) const;
  void Finish(Accumulator& accumulator);

  const HopperMemory* memory_;
  std::deque<Issued> issued_;
  int64_t done_ = 0;  // before issued_.front()
  int commits_ = 0;   // in issued_
  std::array<int64_t, kWarpgroupThreads> next_ = {};
  std::list<Accumulator> accumulators_;
  std::vector<Fenced> fenced_[kWarpgroupThreads];
};

}  // namespace annulus::kernels::cuda
