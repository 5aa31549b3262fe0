// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/hopper_memory.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "tests/unit/cuda/emulator_rules.h"

namespace annulus::kernels::cuda {
namespace {

constexpr uint32_t kNaNWord = 0xffffffffu;  // in float32, and twice in bf16 and f16
constexpr int kThreadsMax = 1024;

}  // namespace

HopperMemory::HopperMemory(uint32_t bytes)
    : words_((bytes + 15) / 16 * 4, kNaNWord),
      stored_by_(words_.size(), 0),
      unfenced_(kThreadsMax),
      loading_(words_.size() / 4, 0) {}

void HopperMemory::CheckInside(uint32_t address, uint32_t bytes, uint32_t alignment) const {
  if (address % alignment != 0) {
    BreakRule(absl::StrCat("shared address ", address, " is not a multiple of ", alignment));
  }
  if (address < kSharedBase || address - kSharedBase + bytes > 4 * words_.size()) {
    BreakRule(absl::StrCat("shared address ", address, " + ", bytes, " of ", 4 * words_.size(),
                           " bytes from ", kSharedBase));
  }
}

void HopperMemory::CheckLanded(uint32_t from, uint32_t bytes) const {
  CheckInside(from, bytes, 1);
  for (uint32_t at = (from - kSharedBase) / 16; at <= (from - kSharedBase + bytes - 1) / 16; ++at) {
    if (loading_[at] != 0) {
      BreakRule(absl::StrCat("shared address ", kSharedBase + 16 * at,
                             " is used while a load into it is under way"));
    }
  }
}

void HopperMemory::CheckFenced(uint32_t address) const {
  const uint16_t by = stored_by_[(address - kSharedBase) / 4];
  if (by != 0) {
    BreakRule(absl::StrCat("shared address ", address, ", stored by thread ", by - 1,
                           ", is used by a unit without that thread's FenceAsync"));
  }
}

uint32_t HopperMemory::LoadWord(uint32_t address) const {
  CheckInside(address, 4, 4);
  CheckLanded(address, 4);
  return WordAt(address);
}

void HopperMemory::StoreWord(int thread, uint32_t address, uint32_t word) {
  CheckInside(address, 4, 4);
  CheckLanded(address, 4);
  words_[(address - kSharedBase) / 4] = word;
  stored_by_[(address - kSharedBase) / 4] = static_cast<uint16_t>(thread + 1);
  unfenced_[thread].push_back(address);
}

void HopperMemory::FenceAsync(int thread) {
  for (const uint32_t address : unfenced_[thread]) {
    uint16_t& by = stored_by_[(address - kSharedBase) / 4];
    if (by == thread + 1) by = 0;
  }
  unfenced_[thread].clear();
}

uint16_t HopperMemory::ReadHalf(uint32_t address) const {
  CheckInside(address, 2, 2);
  CheckFenced(address);
  const uint32_t word = WordAt(address & ~3u);
  return static_cast<uint16_t>(address % 4 == 0 ? word : word >> 16);
}

float HopperMemory::ReadFloat(uint32_t address) const {
  CheckInside(address, 4, 4);
  CheckFenced(address);
  return std::bit_cast<float>(WordAt(address));
}

void HopperMemory::WriteHalf(uint32_t address, uint16_t value) {
  CheckInside(address, 2, 2);
  uint32_t& word = words_[(address - kSharedBase) / 4];
  word = address % 4 == 0 ? (word & 0xffff0000u) | value : (word & 0xffffu) | uint32_t{value} << 16;
}

void HopperMemory::BeginLoad(uint32_t to, uint32_t bytes) {
  CheckLanded(to, bytes);
  for (uint32_t address = to; address < to + bytes; address += 4) {
    CheckFenced(address);
    words_[(address - kSharedBase) / 4] = kNaNWord;
    loading_[(address - kSharedBase) / 16] = 1;
  }
}

void HopperMemory::EndLoad(uint32_t to, uint32_t bytes) {
  for (uint32_t address = to; address < to + bytes; address += 16) {
    loading_[(address - kSharedBase) / 16] = 0;
  }
}

}  // namespace annulus::kernels::cuda
