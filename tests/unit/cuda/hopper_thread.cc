// SPDX-License-Identifier: Apache-2.0
// What a thread asks of its block.
#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/unit/cuda/emulated_tensor_map.h"
#include "tests/unit/cuda/emulator_rules.h"
#include "tests/unit/cuda/hopper_emulator.h"

namespace annulus::kernels::cuda {

int64_t HopperThread::block() const { return emulator_->block_; }
int64_t HopperThread::blocks() const { return emulator_->blocks_; }
HopperMatrix& HopperThread::matrix() { return emulator_->matrices_[thread_ / kWarpgroupThreads]; }

uint32_t HopperThread::LoadWord(uint32_t address) const {
  return emulator_->memory_->LoadWord(address);
}
FourWords HopperThread::LoadFour(uint32_t address) const {
  return emulator_->memory_->LoadFour(address);
}
void HopperThread::StoreWord(uint32_t address, uint32_t word) {
  emulator_->memory_->StoreWord(thread_, address, word);
}
void HopperThread::StoreFour(uint32_t address, const FourWords& words) {
  emulator_->memory_->CheckInside(address, 16, 16);
  for (uint32_t i = 0; i < 4; ++i) StoreWord(address + 4 * i, words.at[i]);
}
void HopperThread::StoreFloats(uint32_t address, float first, float second) {
  emulator_->memory_->CheckInside(address, 8, 8);
  StoreWord(address, std::bit_cast<uint32_t>(first));
  StoreWord(address + 4, std::bit_cast<uint32_t>(second));
}
void HopperThread::FenceAsync() { emulator_->memory_->FenceAsync(thread_); }

void HopperThread::Suspend(Wait wait, uint32_t what, uint32_t detail) {
  wait_ = wait;
  wait_what_ = what;
  wait_detail_ = detail;
  --emulator_->runnable_[thread_ / 32];
  if (wait == Wait::kBarrier) ++emulator_->BarrierAt(what).waiting;
  fiber_.Suspend();
}

void HopperThread::BarrierInit(uint32_t barrier, int arrivals) {
  emulator_->memory_->CheckInside(barrier, 8, 8);
  HopperEmulator::Barrier& made = emulator_->barriers_[barrier];
  made = {};
  made.arrivals = made.missing = arrivals;
  made.initialised_by = thread_;
}

void HopperThread::FenceBarrierInit() {
  for (auto& [address, barrier] : emulator_->barriers_) {
    if (barrier.initialised_by == thread_) barrier.fenced = true;
  }
}

void HopperThread::BarrierArrive(uint32_t barrier) { BarrierArriveExpect(barrier, 0); }

void HopperThread::BarrierArriveExpect(uint32_t barrier, uint32_t bytes) {
  HopperEmulator::Barrier& at = emulator_->BarrierAt(barrier);
  at.bytes += bytes;
  if (--at.missing < 0) BreakRule(absl::StrCat("barrier ", barrier, ": more arrivals than it has"));
  emulator_->CheckPhase(barrier, at);
}

void HopperThread::BarrierWait(uint32_t barrier, uint32_t parity) {
  while (emulator_->BarrierAt(barrier).phase % 2 == parity) {
    Suspend(Wait::kBarrier, barrier, parity);
  }
}

void HopperThread::LoadPanel(const TensorMap& map, uint32_t barrier, uint32_t to, int column,
                             int row, int head, int batch) {
  if (!emulator_->BarrierAt(barrier).fenced) {
    BreakRule(absl::StrCat("barrier ", barrier, " is used by a load without FenceBarrierInit"));
  }
  const auto bytes = static_cast<uint32_t>(BoxRows(map) * kPanelRowBytes);
  emulator_->memory_->CheckInside(to, bytes, kPatternBytes);
  emulator_->memory_->BeginLoad(to, bytes);
  emulator_->loads_.push_back({map, {column, row, head, batch}, barrier, to});
}

void HopperThread::IssueBulk(float* to, uint32_t from, uint32_t bytes, bool add) {
  emulator_->memory_->CheckInside(from, bytes, 16);
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || bytes % 16 != 0 || bytes == 0) {
    BreakRule(absl::StrCat("a bulk store of ", bytes, " bytes to an address off by ",
                           reinterpret_cast<uintptr_t>(to) % 16));
  }
  for (uint32_t i = 0; i < bytes; i += 4) emulator_->memory_->ReadFloat(from + i);  // is it fenced
  bulk_.push_back({to, from, bytes, add});
}

void HopperThread::CommitBulk() {
  bulk_commits_.push_back(std::move(bulk_));
  bulk_.clear();
}

void HopperThread::FinishBulk(size_t commits_left) {
  while (bulk_commits_.size() > commits_left) {
    for (const Bulk& bulk : bulk_commits_.front()) {
      for (uint32_t i = 0; i < bulk.bytes / 4; ++i) {
        const float value = emulator_->memory_->ReadFloat(bulk.from + 4 * i);
        bulk.to[i] = bulk.add ? bulk.to[i] + value : value;
      }
    }
    bulk_commits_.erase(bulk_commits_.begin());
  }
}

void HopperThread::Await(const int32_t* word, int32_t value) {
  awaited_word_ = word;
  awaited_value_ = value;
  while (*word != value) Suspend(Wait::kSharedWord, 0, 0);
}

void HopperThread::PassOn(int32_t* word, int32_t value) {
  const int warp = thread_ / HopperEmulator::kWarpThreads * HopperEmulator::kWarpThreads;
  for (int i = warp; i < warp + HopperEmulator::kWarpThreads; ++i) {
    const HopperThread& other = *emulator_->threads_[i];
    if (!other.bulk_.empty() || !other.bulk_commits_.empty()) {
      BreakRule("a word is passed on while sums of its warp are under way");
    }
  }
  *word = value;
}

void HopperThread::Sync() { NamedSyncOr(0, static_cast<int>(emulator_->threads_.size()), false); }

void HopperThread::NamedArrive(int id, int threads) {
  emulator_->ArriveNamed(*this, id, threads, false);
}

bool HopperThread::NamedSyncOr(int id, int threads, bool flag) {
  HopperEmulator::NamedBarrier& barrier = emulator_->named_[id];
  const uint32_t round = barrier.round;
  emulator_->ArriveNamed(*this, id, threads, flag);
  while (barrier.round == round) Suspend(Wait::kNamedBarrier, id, threads);
  return barrier.result[round % 2];
}

bool HopperThread::AnyInWarp(bool flag) {
  return NamedSyncOr(HopperEmulator::kNamedBarriers + thread_ / HopperEmulator::kWarpThreads,
                     HopperEmulator::kWarpThreads, flag);
}

// Any lane may be the one, but the same for the whole warp.
bool HopperThread::ElectOne() {
  const uint32_t draw = emulator_->seed_ + 2654435761u * (++elections_ + 97u * (thread_ / 32));
  return static_cast<int>(draw >> 16 & 31) == thread_ % 32;
}

void HopperThread::ChangeRegisters(int registers, bool increase) {
  const int more = registers - registers_;
  if (increase ? more < 0 : more > 0) {
    BreakRule(absl::StrCat("setmaxnreg from ", registers_, " to ", registers, " the wrong way"));
  }
  while (emulator_->free_registers_ < more) Suspend(Wait::kRegisters, registers, 0);
  emulator_->free_registers_ -= more;
  registers_ = registers;
  emulator_->Wake(Wait::kRegisters, 0, 0, static_cast<int>(emulator_->threads_.size()));
}

float HopperThread::Exp2(float x) const { return std::exp2(x); }

float HopperThread::Shuffle(float value, int lane) {
  HopperEmulator::Gathering& warp = emulator_->of_warps_[thread_ / 32];
  std::vector<float>& shown = warp.shown[warp.round % 2];
  shown.resize(32);
  shown[thread_ % 32] = value;
  emulator_->Gather(*this, warp, Wait::kOtherLanes, 32, HopperEmulator::kShuffle);
  return shown[lane];
}

void HopperThread::WaitForProducts(int commits_left) {
  HopperEmulator::Gathering& group = emulator_->of_warpgroups_[thread_ / kWarpgroupThreads];
  emulator_->Gather(*this, group, Wait::kOtherWarps, kWarpgroupThreads,
                    HopperEmulator::kProducts + static_cast<uint32_t>(commits_left));
}

}  // namespace annulus::kernels::cuda
