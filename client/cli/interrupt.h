// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

namespace annulus::cli {

// SIGINT, SIGTERM and SIGHUP end the program in order: registered cleanups run, then it exits with
// 128 + signal (or `exit_code`). To be called once, before any other thread exists, so that every
// thread leaves the signals to the one that waits for them.
void InstallInterrupts();
// The exit code after a signal, where a signal is the normal end.
void SetInterruptExitCode(int exit_code);

// Runs `cleanup` if a signal comes while this lives. It must be safe beside the main thread.
class ScopedCleanup {
 public:
  explicit ScopedCleanup(std::function<void()> cleanup);
  ~ScopedCleanup();
  ScopedCleanup(const ScopedCleanup&) = delete;
  ScopedCleanup& operator=(const ScopedCleanup&) = delete;
};

// While this lives a signal waits: for the moments in which files are half written.
class UninterruptedSection {
 public:
  UninterruptedSection();
  ~UninterruptedSection();
  UninterruptedSection(const UninterruptedSection&) = delete;
  UninterruptedSection& operator=(const UninterruptedSection&) = delete;
};

}  // namespace annulus::cli
