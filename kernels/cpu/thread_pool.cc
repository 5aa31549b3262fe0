// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include "kernels/cpu/flush_denormals.h"

namespace annulus::kernels::cpu {

ThreadPool::ThreadPool(int threads) {
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
  if (helpers_.empty() || items <= 1) {
    for (int64_t item = 0; item < items; ++item) work.call(work.object, item, 0);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_ = work;
    items_ = items;
    next_item_ = 0;
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
    int64_t item = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (next_item_ >= items) return;
      item = next_item_++;
    }
    work.call(work.object, item, thread);
  }
}

void ThreadPool::HelperLoop(int thread) {
  const FlushDenormals flush;
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
