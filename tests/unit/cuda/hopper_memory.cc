// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/hopper_memory.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "tests/unit/cuda/emulator_rules.h"

namespace annulus::kernels::cuda {
namespace {

constexpr uint32_t kNaNWord = 0xffffffffu;  // in float32, and twice in bf16 and f16
constexpr int kThreadsMax = 1024;

}  // namespace

HopperMemory::HopperMemory(uint32_t bytes)
    : bytes_((bytes + 15) / 16 * 16),
      words_(bytes_ / 4, kNaNWord),
      stored_by_(words_.size(), 0),
      unfenced_(kThreadsMax),
      loading_(words_.size() / 4, 0) {}

void HopperMemory::NotInside(uint32_t address, uint32_t bytes, uint32_t alignment) const {
  if (address % alignment != 0) {
    BreakRule(absl::StrCat("shared address ", address, " is not a multiple of ", alignment));
  }
  BreakRule(absl::StrCat("shared address ", address, " + ", bytes, " of ", bytes_, " bytes from ",
                         kSharedBase));
}

void HopperMemory::NotLanded(uint32_t address) {
  BreakRule(absl::StrCat("shared address ", address, " is used while a load into it is under way"));
}

void HopperMemory::CheckLanded(uint32_t from, uint32_t bytes) const {
  CheckInside(from, bytes, 1);
  for (uint32_t at = from / 16 * 16; at < from + bytes; at += 16) CheckLanded(at);
}

void HopperMemory::CheckFenced(uint32_t address, uint32_t words) const {
  for (uint32_t at = address; at < address + 4 * words; at += 4) {
    const uint16_t by = stored_by_[WordIndex(at)];
    if (by != 0) {
      BreakRule(absl::StrCat("shared address ", at, ", stored by thread ", by - 1,
                             ", is used by a unit without that thread's FenceAsync"));
    }
  }
}

FourWords HopperMemory::LoadFour(uint32_t address) const {
  CheckInside(address, 16, 16);
  CheckLanded(address);
  const uint32_t* const from = &words_[WordIndex(address)];
  return {{from[0], from[1], from[2], from[3]}};
}

void HopperMemory::StoreWord(int thread, uint32_t address, uint32_t word) {
  CheckInside(address, 4, 4);
  CheckLanded(address);
  words_[WordIndex(address)] = word;
  stored_by_[WordIndex(address)] = static_cast<uint16_t>(thread + 1);
  unfenced_[thread].push_back(address);
}

void HopperMemory::FenceAsync(int thread) {
  for (const uint32_t address : unfenced_[thread]) {
    uint16_t& by = stored_by_[WordIndex(address)];
    if (by == thread + 1) by = 0;
  }
  unfenced_[thread].clear();
}

float HopperMemory::ReadFloat(uint32_t address) const {
  CheckInside(address, 4, 4);
  CheckFenced(address, 1);
  return std::bit_cast<float>(words_[WordIndex(address)]);
}

FourWords HopperMemory::ReadFour(uint32_t address) const {
  CheckInside(address, 16, 16);
  CheckFenced(address, 4);
  const uint32_t* const from = &words_[WordIndex(address)];
  return {{from[0], from[1], from[2], from[3]}};
}

void HopperMemory::WriteFour(uint32_t address, const FourWords& words) {
  CheckInside(address, 16, 16);
  std::copy_n(words.at, 4, &words_[WordIndex(address)]);
}

void HopperMemory::BeginLoad(uint32_t to, uint32_t bytes) {
  CheckLanded(to, bytes);
  CheckFenced(to, bytes / 4);
  std::fill_n(&words_[WordIndex(to)], bytes / 4, kNaNWord);
  std::fill_n(&loading_[WordIndex(to) / 4], bytes / 16, 1);
}

void HopperMemory::EndLoad(uint32_t to, uint32_t bytes) {
  std::fill_n(&loading_[WordIndex(to) / 4], bytes / 16, 0);
}

}  // namespace annulus::kernels::cuda
