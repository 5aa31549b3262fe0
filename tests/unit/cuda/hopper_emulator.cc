// SPDX-License-Identifier: Apache-2.0
// The block, and what becomes of what its threads ask.
#include "tests/unit/cuda/hopper_emulator.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/unit/cuda/emulated_tensor_map.h"
#include "tests/unit/cuda/emulator_rules.h"

namespace annulus::kernels::cuda {

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
