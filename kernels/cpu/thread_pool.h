// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace annulus::kernels::cpu {

// The compute threads of a device: `threads - 1` of its own and whoever calls. With one thread
// nothing is started and work runs inline. Every thread flushes denormals to zero while it works,
// and the caller's floating-point state is put back afterwards.
//
// Parallel may be called from one thread at a time. The destructor joins.
class ThreadPool {
 public:
  // `cpus`: empty, or a processor for each thread, which it is bound to while it works. The calling
  // thread is thread 0 and may run where it did again when Parallel returns. Binding that the
  // system refuses is left out.
  explicit ThreadPool(int threads, std::vector<int> cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Runs work(item, thread) for every item in [0, items) and returns when all are done. Items are
  // begun in rising order, each as soon as a thread is free, so an item may wait for lower ones.
  // `thread` in [0, threads()) names the scratch it may use. `work` must not throw.
  template <typename Work>
  void Parallel(int64_t items, const Work& work) {
    Run(items, {&work, [](const void* object, int64_t item, int thread) {
                  (*static_cast<const Work*>(object))(item, thread);
                }});
  }

 private:
  // A reference to what runs for one item; unlike std::function it never allocates.
  struct WorkRef {
    const void* object = nullptr;
    void (*call)(const void* object, int64_t item, int thread) = nullptr;
  };

  void Run(int64_t items, WorkRef work);
  void RunOnAll(int64_t items, WorkRef work);
  void HelperLoop(int thread);
  void TakeItems(WorkRef work, int64_t items, int thread);

  const std::vector<int> cpus_;
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  uint64_t generation_ = 0;            // guarded by mutex_
  bool stopping_ = false;              // guarded by mutex_
  WorkRef work_;                       // guarded by mutex_
  int64_t items_ = 0;                  // guarded by mutex_
  int active_ = 0;                     // guarded by mutex_: helpers still inside the present work
  std::atomic<int64_t> next_item_{0};  // of the present work
  std::vector<std::thread> helpers_;
};

}  // namespace annulus::kernels::cpu
