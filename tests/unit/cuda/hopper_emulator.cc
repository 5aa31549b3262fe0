// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/hopper_emulator.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/unit/cuda/emulated_tensor_map.h"
#include "tests/unit/cuda/emulator_rules.h"

namespace annulus::kernels::cuda {
namespace {

constexpr uint32_t kShuffle = 1;
constexpr uint32_t kProducts = 2;  // and how many commits are left

}  // namespace

// ---- A thread: what it asks of its block.

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
  emulator_->Gather(*this, warp, Wait::kOtherLanes, 32, kShuffle);
  return shown[lane];
}

void HopperThread::WaitForProducts(int commits_left) {
  HopperEmulator::Gathering& group = emulator_->of_warpgroups_[thread_ / kWarpgroupThreads];
  emulator_->Gather(*this, group, Wait::kOtherWarps, kWarpgroupThreads,
                    kProducts + static_cast<uint32_t>(commits_left));
}

// ---- The block.

HopperEmulator::HopperEmulator(int threads, uint32_t shared_bytes, uint32_t seed)
    : seed_(seed), shared_bytes_(shared_bytes) {
  for (int i = 0; i < threads; ++i) {
    threads_.push_back(std::make_unique<HopperThread>());
    threads_.back()->emulator_ = this;
    threads_.back()->thread_ = i;
  }
}

void HopperEmulator::Reset() {
  const int threads = static_cast<int>(threads_.size());
  rng_.seed(seed_);
  memory_ = std::make_unique<HopperMemory>(shared_bytes_);
  matrices_.assign(threads / kWarpgroupThreads, HopperMatrix(memory_.get()));
  of_warps_.assign(threads / kWarpThreads, {});
  of_warpgroups_.assign(threads / kWarpgroupThreads, {});
  named_ = {};
  barriers_.clear();
  loads_.clear();
  runnable_.assign(threads / kWarpThreads, kWarpThreads);
  over_ = 0;
  const int registers = std::min(kRegisterFile / threads / 8 * 8, 248);
  free_registers_ = kRegisterFile - registers * threads;
  for (auto& thread : threads_) {
    thread->wait_ = HopperThread::Wait::kNothing;
    thread->registers_ = registers;
    thread->elections_ = 0;
    thread->bulk_.clear();
    thread->bulk_commits_.clear();
  }
}

void HopperEmulator::Run(int64_t block, int64_t blocks,
                         const std::function<void(HopperThread&)>& body) {
  Start(block, blocks, body);
  for (;;) {
    const Progress progress = Step();
    if (progress == Progress::kStuck) Deadlock();
    if (progress == Progress::kOver) break;
  }
  CheckEnd();
}

void HopperEmulator::Start(int64_t block, int64_t blocks,
                           const std::function<void(HopperThread&)>& body) {
  block_ = block;
  blocks_ = blocks;
  Reset();
  for (auto& thread : threads_) {
    HopperThread* const own = thread.get();
    own->fiber_.Start([own, &body] { body(*own); });
  }
}

std::vector<size_t> HopperEmulator::LoadsWaitedFor() const {
  std::vector<size_t> found;
  for (size_t i = 0; i < loads_.size(); ++i) {
    if (barriers_.at(loads_[i].barrier).waiting > 0) found.push_back(i);
  }
  return found;
}

// A warp that can go on does, or a load lands: one of them, drawn.
HopperEmulator::Progress HopperEmulator::Step() {
  if (over_ == static_cast<int>(threads_.size())) return Progress::kOver;
  for (const auto& thread : threads_) {
    if (thread->wait_ == HopperThread::Wait::kSharedWord &&
        *thread->awaited_word_ == thread->awaited_value_) {
      thread->wait_ = HopperThread::Wait::kNothing;
      ++runnable_[thread->thread_ / kWarpThreads];
    }
  }
  std::vector<int> warps;
  for (size_t warp = 0; warp < runnable_.size(); ++warp) {
    if (runnable_[warp] > 0) warps.push_back(static_cast<int>(warp));
  }
  const std::vector<size_t> loads = LoadsWaitedFor();
  const size_t choices = warps.size() + loads.size();
  if (choices == 0) return Progress::kStuck;
  const size_t choice = rng_() % choices;
  if (choice < warps.size()) {
    RunWarp(warps[choice]);
  } else {
    Land(loads[choice - warps.size()]);
  }
  return Progress::kMoved;
}

void HopperEmulator::RunWarp(int warp) {
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    HopperThread& thread = *threads_[warp * kWarpThreads + lane];
    if (thread.wait_ != HopperThread::Wait::kNothing) continue;
    thread.fiber_.Resume();
    if (!thread.fiber_.done()) continue;
    thread.wait_ = HopperThread::Wait::kOver;
    --runnable_[warp];
    ++over_;
  }
}

void HopperEmulator::Land(size_t index) {
  const Load load = loads_[index];
  loads_.erase(loads_.begin() + static_cast<std::ptrdiff_t>(index));
  const std::vector<uint16_t> panel =
      ReadPanel(load.map, load.at[0], load.at[1], load.at[2], load.at[3]);
  const auto bytes = static_cast<uint32_t>(panel.size() * 2);
  for (uint32_t at = 0; at < bytes; at += sizeof(FourWords)) {
    FourWords piece;
    std::memcpy(&piece, panel.data() + at / 2, sizeof(piece));
    memory_->WriteFour(Swizzled(load.to + at), piece);
  }
  memory_->EndLoad(load.to, bytes);
  Barrier& barrier = BarrierAt(load.barrier);
  barrier.bytes -= bytes;
  CheckPhase(load.barrier, barrier);
}

HopperEmulator::Barrier& HopperEmulator::BarrierAt(uint32_t address) {
  const auto found = barriers_.find(address);
  if (found == barriers_.end()) {
    BreakRule(absl::StrCat("barrier ", address, " was never initialised"));
  }
  return found->second;
}

void HopperEmulator::CheckPhase(uint32_t address, Barrier& barrier) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.missing = barrier.arrivals;
  if (barrier.waiting == 0) return;
  barrier.waiting = 0;
  Wake(HopperThread::Wait::kBarrier, address, 0, static_cast<int>(threads_.size()));
}

void HopperEmulator::Wake(HopperThread::Wait wait, uint32_t what, int first, int count) {
  for (int i = first; i < first + count; ++i) {
    HopperThread& thread = *threads_[i];
    const bool any = wait == HopperThread::Wait::kRegisters;
    if (thread.wait_ == wait && (any || thread.wait_what_ == what)) {
      thread.wait_ = HopperThread::Wait::kNothing;
      ++runnable_[i / kWarpThreads];
    }
  }
}

bool HopperEmulator::Gather(HopperThread& thread, Gathering& gathering, HopperThread::Wait wait,
                            int size, uint32_t kind) {
  if (gathering.arrived > 0 && gathering.kind != kind) {
    BreakRule(absl::StrCat("thread ", thread.thread_, " comes to another collective (", kind,
                           ") than its fellows (", gathering.kind, ")"));
  }
  gathering.kind = kind;
  const uint32_t round = gathering.round;
  if (++gathering.arrived < size) {
    while (gathering.round == round) thread.Suspend(wait, kind, 0);
    return false;
  }
  if (wait == HopperThread::Wait::kOtherWarps) {
    thread.matrix().WaitForAllBut(static_cast<int>(kind - kProducts));
  }
  gathering.arrived = 0;
  ++gathering.round;
  Wake(wait, kind, thread.thread_ / size * size, size);
  return true;
}

void HopperEmulator::ArriveNamed(const HopperThread& thread, int id, int threads, bool flag) {
  const bool own_warp = id == kNamedBarriers + thread.thread_ / kWarpThreads;
  if (id < 0 || (id >= kNamedBarriers && !own_warp) || threads % kWarpThreads != 0 ||
      threads < kWarpThreads) {
    BreakRule(absl::StrCat("named barrier ", id, " of ", threads, " threads"));
  }
  NamedBarrier& barrier = named_[id];
  if (barrier.arrived > 0 && barrier.threads != threads) {
    BreakRule(absl::StrCat("named barrier ", id, ": ", threads, " threads for one, ",
                           barrier.threads, " for another"));
  }
  barrier.threads = threads;
  barrier.any = barrier.any || flag;
  ++barrier.by_warp[thread.thread_ / kWarpThreads];
  if (++barrier.arrived < threads) return;
  for (const auto& [warp, count] : barrier.by_warp) {
    if (count != kWarpThreads) {
      BreakRule(absl::StrCat("named barrier ", id, ": ", count, " threads of warp ", warp));
    }
  }
  barrier.result[barrier.round % 2] = barrier.any;
  barrier.any = false;
  barrier.arrived = 0;
  barrier.by_warp.clear();
  ++barrier.round;
  Wake(HopperThread::Wait::kNamedBarrier, id, 0, static_cast<int>(threads_.size()));
}

std::string HopperEmulator::WhatIsWaitedFor(int warp) const {
  std::map<std::string, int> waits;
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    const HopperThread& thread = *threads_[warp * kWarpThreads + lane];
    std::string text;
    switch (thread.wait_) {
      case HopperThread::Wait::kNothing:
        text = "nothing";
        break;
      case HopperThread::Wait::kOtherLanes:
        text = "the other lanes";
        break;
      case HopperThread::Wait::kOtherWarps:
        text = "the other warps of its group";
        break;
      case HopperThread::Wait::kNamedBarrier:
        text = absl::StrCat("named barrier ", thread.wait_what_, " (",
                            named_[thread.wait_what_].arrived, " of ",
                            named_[thread.wait_what_].threads, " there)");
        break;
      case HopperThread::Wait::kBarrier: {
        const Barrier& barrier = barriers_.at(thread.wait_what_);
        text = absl::StrCat("barrier ", thread.wait_what_, " parity ", thread.wait_detail_, " (",
                            barrier.missing, " arrivals and ", barrier.bytes, " bytes missing)");
        break;
      }
      case HopperThread::Wait::kRegisters:
        text = absl::StrCat(thread.wait_what_, " registers");
        break;
      case HopperThread::Wait::kSharedWord:
        text = absl::StrCat("a shared word to be ", thread.awaited_value_, ", it is ",
                            *thread.awaited_word_);
        break;
      case HopperThread::Wait::kOver:
        text = "nothing, it is over";
        break;
    }
    ++waits[text];
  }
  std::string all = absl::StrCat("warp ", warp, ":");
  for (const auto& [text, lanes] : waits)
    absl::StrAppend(&all, " ", lanes, " lanes for ", text, ";");
  return all;
}

void HopperEmulator::Deadlock() const {
  std::string all = absl::StrCat("deadlock, ", loads_.size(), " loads under way. Waiting are");
  for (int warp = 0; warp < static_cast<int>(of_warps_.size()); ++warp) {
    absl::StrAppend(&all, "\n  ", WhatIsWaitedFor(warp));
  }
  BreakRule(all);
}

void HopperEmulator::CheckEnd() const {
  if (!loads_.empty()) BreakRule("the block ended with loads under way");
  for (const HopperMatrix& matrix : matrices_) matrix.CheckIdle();
  for (size_t id = 0; id < named_.size(); ++id) {
    if (named_[id].arrived != 0) {
      BreakRule(absl::StrCat("the block ended with ", named_[id].arrived,
                             " arrivals at named barrier ", id));
    }
  }
  for (const auto& thread : threads_) {
    if (!thread->bulk_.empty() || !thread->bulk_commits_.empty()) {
      BreakRule("the block ended with bulk stores that were never waited for");
    }
    const HopperThread& first = *threads_[thread->thread_ / kWarpgroupThreads * kWarpgroupThreads];
    if (thread->registers_ != first.registers_) {
      BreakRule("the threads of a warpgroup ended with unlike numbers of registers");
    }
  }
}

// ---- A grid.

HopperGrid::HopperGrid(int threads, uint32_t shared_bytes, uint32_t seed, int resident)
    : seed_(seed) {
  for (int i = 0; i < resident; ++i) {
    places_.push_back(std::make_unique<HopperEmulator>(threads, shared_bytes, seed + i));
  }
}

void HopperGrid::Run(int64_t blocks, const std::function<void(HopperThread&)>& body) {
  using Progress = HopperEmulator::Progress;
  std::vector<int64_t> left(blocks);
  std::iota(left.rbegin(), left.rend(), 0);
  std::mt19937 rng(seed_);
  if (places_.size() > 1) std::shuffle(left.begin(), left.end(), rng);
  std::vector<HopperEmulator*> running;
  std::vector<HopperEmulator*> free;
  for (const auto& place : places_) free.push_back(place.get());
  size_t stuck = 0;  // looked at in vain, one after the other
  for (size_t turn = 0;; ++turn) {
    while (!free.empty() && !left.empty()) {
      free.back()->Start(left.back(), blocks, body);
      running.push_back(free.back());
      free.pop_back();
      left.pop_back();
    }
    if (running.empty()) return;
    const size_t place = stuck > 0 ? turn % running.size() : rng() % running.size();
    HopperEmulator* const block = running[place];
    const Progress progress = block->Step();
    stuck = progress == Progress::kStuck ? stuck + 1 : 0;
    if (stuck > running.size()) block->Deadlock();
    if (progress != Progress::kOver) continue;
    block->CheckEnd();
    running.erase(running.begin() + static_cast<std::ptrdiff_t>(place));
    free.push_back(block);
  }
}

}  // namespace annulus::kernels::cuda
