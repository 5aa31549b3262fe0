// SPDX-License-Identifier: Apache-2.0
#pragma once

// The shared memory of an emulated block, as the threads see it and as the asynchronous units (the
// copy engine, the matrix unit) see it.
//
// - It starts as NaN in every format.
// - What a thread stored is not there for the units before that thread's fence.
// - Where a load is under way nobody may look: the place is NaN, and reading it breaks a rule.

#include <cstdint>
#include <vector>

#include "kernels/cuda/sm90/hopper_thread.h"

namespace annulus::kernels::cuda {

inline constexpr uint32_t kSharedBase = 1024;  // nothing starts at 0

class HopperMemory {
 public:
  explicit HopperMemory(uint32_t bytes);

  // Addresses are multiples of what is read or written.
  uint32_t LoadWord(uint32_t address) const {
    CheckInside(address, 4, 4);
    CheckLanded(address);
    return words_[WordIndex(address)];
  }
  FourWords LoadFour(uint32_t address) const;
  void StoreWord(int thread, uint32_t address, uint32_t word);
  void FenceAsync(int thread);

  // As a unit reads and writes.
  float ReadFloat(uint32_t address) const;
  FourWords ReadFour(uint32_t address) const;
  void WriteFour(uint32_t address, const FourWords& words);

  // A load into [to, to + bytes), both multiples of 16, is under way from Begin to End.
  void BeginLoad(uint32_t to, uint32_t bytes);
  void EndLoad(uint32_t to, uint32_t bytes);
  // Ends the program if a load into the range is under way.
  void CheckLanded(uint32_t from, uint32_t bytes) const;
  // Ends the program if a part of the range is not there.
  void CheckInside(uint32_t address, uint32_t bytes, uint32_t alignment) const {
    const bool inside = address >= kSharedBase && address - kSharedBase + bytes <= bytes_;
    if (!inside || address % alignment != 0) NotInside(address, bytes, alignment);
  }

 private:
  static uint32_t WordIndex(uint32_t address) { return (address - kSharedBase) / 4; }
  [[noreturn]] void NotInside(uint32_t address, uint32_t bytes, uint32_t alignment) const;
  [[noreturn]] static void NotLanded(uint32_t address);
  // Of the word at the address.
  void CheckLanded(uint32_t address) const {
    if (loading_[WordIndex(address) / 4] != 0) NotLanded(address);
  }
  void CheckFenced(uint32_t address, uint32_t words) const;

  uint32_t bytes_;
  std::vector<uint32_t> words_;
  std::vector<uint16_t> stored_by_;              // of each word, thread + 1 until its fence
  std::vector<std::vector<uint32_t>> unfenced_;  // addresses, by thread
  std::vector<uint8_t> loading_;                 // of each 16 bytes
};

}  // namespace annulus::kernels::cuda
