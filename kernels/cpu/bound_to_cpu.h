// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

namespace annulus::kernels::cpu {

// Lets this thread run on one processor only. False if the system refuses.
inline bool BindThisThread(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

// Binds this thread for the lifetime of the object, then lets it run where it did before.
class BoundToCpu {
 public:
  explicit BoundToCpu(int cpu)
      : bound_(sched_getaffinity(0, sizeof(before_), &before_) == 0 && BindThisThread(cpu)) {}
  ~BoundToCpu() {
    if (bound_) sched_setaffinity(0, sizeof(before_), &before_);
  }
  BoundToCpu(const BoundToCpu&) = delete;
  BoundToCpu& operator=(const BoundToCpu&) = delete;

 private:
  cpu_set_t before_;
  bool bound_;
};

}  // namespace annulus::kernels::cpu
