// SPDX-License-Identifier: Apache-2.0
#pragma once

// A function on a stack of its own that gives way to whoever resumed it.

#include <setjmp.h>
#include <ucontext.h>

#include <functional>
#include <memory>

namespace annulus::kernels::cuda {

// Neither copied nor moved once started; used from one system thread.
class Fiber {
 public:
  Fiber();

  // The next Resume enters `body` from its start, whatever went on before.
  void Start(std::function<void()> body);
  // Runs the body until it suspends itself or ends.
  void Resume();
  // From within the body.
  void Suspend();
  bool done() const { return done_; }

 private:
  static void Enter(unsigned high, unsigned low);

  std::function<void()> body_;
  bool started_ = false;
  bool done_ = true;
  ucontext_t start_ = {};
  jmp_buf resume_ = {};
  jmp_buf resumer_ = {};
  std::unique_ptr<char[]> stack_;
};

}  // namespace annulus::kernels::cuda
