// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/fiber.h"

#include <cstddef>
#include <cstdint>
#include <utility>

namespace annulus::kernels::cuda {
namespace {

constexpr size_t kStackBytes = 256 << 10;

}  // namespace

Fiber::Fiber() : stack_(new char[kStackBytes]) {}  // left untouched: megabytes of zeros take time

void Fiber::Start(std::function<void()> body) {
  body_ = std::move(body);
  started_ = false;
  done_ = false;
  getcontext(&start_);
  start_.uc_stack.ss_sp = stack_.get();
  start_.uc_stack.ss_size = kStackBytes;
  const auto address = reinterpret_cast<uintptr_t>(this);
  makecontext(&start_, reinterpret_cast<void (*)()>(&Enter), 2,
              static_cast<unsigned>(address >> 32), static_cast<unsigned>(address));
}

void Fiber::Enter(unsigned high, unsigned low) {
  auto* fiber = reinterpret_cast<Fiber*>((uintptr_t{high} << 32) | low);
  fiber->body_();
  fiber->done_ = true;
  fiber->Suspend();
}

// Contexts are entered once and then jumped between: swapcontext makes a system call each time.
void Fiber::Resume() {
  if (_setjmp(resumer_) != 0) return;
  if (started_) _longjmp(resume_, 1);
  started_ = true;
  setcontext(&start_);
}

void Fiber::Suspend() {
  if (_setjmp(resume_) == 0) _longjmp(resumer_, 1);
}

}  // namespace annulus::kernels::cuda
