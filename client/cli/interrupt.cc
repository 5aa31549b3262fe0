// SPDX-License-Identifier: Apache-2.0
#include "client/cli/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace annulus::cli {
namespace {

struct Shared {
  std::mutex section;  // held while files are written and while a signal is handled
  std::mutex cleanups_mutex;
  std::vector<std::function<void()>> cleanups;
  std::atomic<int> exit_code{-1};
};

// Never destroyed: the waiting thread may outlive main.
Shared& State() {
  static Shared& state = *new Shared;
  return state;
}

[[noreturn]] void EndAfterSignals(sigset_t signals) {
  int received = 0;
  while (sigwait(&signals, &received) != 0) {
  }
  State().section.lock();
  {
    std::lock_guard<std::mutex> lock(State().cleanups_mutex);
    for (const auto& cleanup : State().cleanups) cleanup();
  }
  const int code = State().exit_code;
  _exit(code >= 0 ? code : 128 + received);
}

}  // namespace

void InstallInterrupts() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] { EndAfterSignals(signals); }).detach();
}

void SetInterruptExitCode(int exit_code) { State().exit_code = exit_code; }

ScopedCleanup::ScopedCleanup(std::function<void()> cleanup) {
  std::lock_guard<std::mutex> lock(State().cleanups_mutex);
  State().cleanups.push_back(std::move(cleanup));
}

ScopedCleanup::~ScopedCleanup() {
  std::lock_guard<std::mutex> lock(State().cleanups_mutex);
  State().cleanups.pop_back();
}

UninterruptedSection::UninterruptedSection() { State().section.lock(); }
UninterruptedSection::~UninterruptedSection() { State().section.unlock(); }

}  // namespace annulus::cli
