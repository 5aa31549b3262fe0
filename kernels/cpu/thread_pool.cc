// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <utility>

#include "kernels/cpu/bound_to_cpu.h"
#include "kernels/cpu/flush_denormals.h"

namespace annulus::kernels::cpu {

ThreadPool::ThreadPool(int threads, std::vector<int> cpus) : cpus_(std::move(cpus)) {
  for (int thread = 1; thread < threads; ++thread) {
    helpers_.emplace_back([this, thread] { HelperLoop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadPool::Run(int64_t items, WorkRef work) {
  const FlushDenormals flush;
  if (cpus_.empty()) {
    RunOnAll(items, work);
  } else {
    const BoundToCpu bound(cpus_[0]);
    RunOnAll(items, work);
  }
}

void ThreadPool::RunOnAll(int64_t items, WorkRef work) {
  if (helpers_.empty() || items <= 1) {
    for (int64_t item = 0; item < items; ++item) work.call(work.object, item, 0);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_ = work;
    items_ = items;
    next_item_.store(0, std::memory_order_relaxed);
    active_ = static_cast<int>(helpers_.size());
    ++generation_;
  }
  start_.notify_all();
  TakeItems(work, items, 0);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return active_ == 0; });
}

void ThreadPool::TakeItems(WorkRef work, int64_t items, int thread) {
  for (;;) {
    const int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= items) return;
    work.call(work.object, item, thread);
  }
}

void ThreadPool::HelperLoop(int thread) {
  const FlushDenormals flush;
  if (!cpus_.empty()) BindThisThread(cpus_[static_cast<size_t>(thread)]);
  uint64_t seen = 0;
  for (;;) {
    WorkRef work;
    int64_t items = 0;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
      work = work_;
      items = items_;
    }
    TakeItems(work, items, thread);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--active_ == 0) done_.notify_one();
  }
}

}  // namespace annulus::kernels::cpu
