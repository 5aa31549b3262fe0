// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/block_emulator.h"

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace annulus::kernels::cuda {
namespace {

[[noreturn]] void Diverged(int thread) {
  std::fprintf(stderr, "thread %d waits at another barrier than its fellows\n", thread);
  std::abort();
}

}  // namespace

int64_t EmulatedThread::block() const { return emulator_->block_; }

float* EmulatedThread::shared() { return emulator_->shared_.data(); }

void EmulatedThread::Yield(State state) {
  state_ = state;
  fiber_.Suspend();
}

void EmulatedThread::Sync() { Yield(State::kAtBlockBarrier); }

void EmulatedThread::SyncWarp() { Yield(State::kAtWarpBarrier); }

const std::vector<EmulatedThread::Words>& EmulatedThread::Exchange(const Words& words) {
  std::vector<Words>& exchange = emulator_->exchange_[exchanges_++ % 2];
  exchange[thread_] = words;
  Yield(State::kAtWarpBarrier);
  return exchange;
}

float EmulatedThread::Shuffle(float value, int from) {
  return std::bit_cast<float>(Exchange({std::bit_cast<uint32_t>(value)})[from][0]);
}

bool EmulatedThread::SyncOr(bool flag) {
  const size_t vote = votes_++;
  if (emulator_->votes_.size() <= vote) emulator_->votes_.resize(vote + 1, 0);
  emulator_->votes_[vote] |= static_cast<char>(flag);
  Sync();
  return emulator_->votes_[vote] != 0;
}

BlockEmulator::BlockEmulator(int threads, size_t shared_bytes)
    : threads_(threads), shared_(shared_bytes / sizeof(float)) {
  for (auto& exchange : exchange_) exchange.resize(threads);
  for (int i = 0; i < threads; ++i) {
    threads_[i].emulator_ = this;
    threads_[i].thread_ = i;
  }
}

void BlockEmulator::Resume(EmulatedThread& thread) {
  thread.state_ = EmulatedThread::State::kRunning;
  thread.fiber_.Resume();
  if (thread.fiber_.done()) thread.state_ = EmulatedThread::State::kDone;
}

// Until all threads of the warp wait for the block or are done.
void BlockEmulator::RunWarp(int warp) {
  EmulatedThread* const first = &threads_[static_cast<size_t>(warp) * kWarp];
  do {
    for (EmulatedThread* thread = first; thread < first + kWarp; ++thread) {
      if (thread->state_ == EmulatedThread::State::kDone) continue;
      Resume(*thread);
      if (thread->state_ != first->state_) Diverged(thread->thread_);
    }
  } while (first->state_ == EmulatedThread::State::kAtWarpBarrier);
}

void BlockEmulator::Run(int64_t block, const std::function<void(EmulatedThread&)>& body) {
  block_ = block;
  votes_.clear();
  shared_.assign(shared_.size(), std::numeric_limits<float>::quiet_NaN());
  for (EmulatedThread& thread : threads_) {
    thread.state_ = EmulatedThread::State::kRunning;
    thread.exchanges_ = 0;
    thread.votes_ = 0;
    thread.fiber_.Start([&thread, &body] { body(thread); });
  }
  const int warps = static_cast<int>(threads_.size()) / kWarp;
  bool done = false;
  while (!done) {
    for (int warp = 0; warp < warps; ++warp) RunWarp(warp);
    done = threads_[0].state_ == EmulatedThread::State::kDone;
    for (const EmulatedThread& thread : threads_) {
      if (thread.state_ != threads_[0].state_) Diverged(thread.thread_);
    }
  }
}

}  // namespace annulus::kernels::cuda
