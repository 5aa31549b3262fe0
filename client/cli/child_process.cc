// SPDX-License-Identifier: Apache-2.0
#include "client/cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

extern char** environ;

namespace annulus::cli {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(5);

// Signals as a fresh program expects them, whatever we blocked or ignore.
void ResetSignals(posix_spawnattr_t* attributes) {
  sigset_t none, defaults;
  sigemptyset(&none);
  sigfillset(&defaults);
  posix_spawnattr_setsigmask(attributes, &none);
  posix_spawnattr_setsigdefault(attributes, &defaults);
  posix_spawnattr_setpgroup(attributes, 0);
  posix_spawnattr_setflags(attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::string& program, const std::vector<std::string>& args) {
  // In memory, so that nothing is left behind however we end.
  const int output = memfd_create("annulus-log", MFD_CLOEXEC);
  if (output < 0) return absl::ResourceExhaustedError("no memory for a log");
  // Both streams write through one descriptor: append, lest they overwrite each other.
  fcntl(output, F_SETFL, O_APPEND);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, 1);
  posix_spawn_file_actions_adddup2(&actions, output, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  ResetSignals(&attributes);
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  const std::string parent = absl::StrCat("ANNULUS_PARENT_PID=", getpid());
  std::vector<char*> environment{const_cast<char*>(parent.c_str())};
  for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
  environment.push_back(nullptr);
  pid_t pid = -1;
  const int failed =
      posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) {
    close(output);
    return absl::InternalError(absl::StrCat("cannot start ", program, ": ", std::strerror(failed)));
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, output));
}

ChildProcess::~ChildProcess() {
  if (Running()) {
    Signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(output_fd_);
}

bool ChildProcess::Running() {
  if (reaped_) return false;
  int ended = 0;
  reaped_ = waitpid(pid_, &ended, WNOHANG) != 0;
  if (reaped_ && WIFEXITED(ended)) exit_code_ = WEXITSTATUS(ended);
  return !reaped_;
}

void ChildProcess::Signal(int number) {
  if (!reaped_) kill(pid_, number);
}

bool ChildProcess::WaitUntil(absl::Time deadline) {
  while (Running()) {
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(kPollInterval);
  }
  return true;
}

std::string ChildProcess::Output(size_t bytes_max) const {
  struct stat info {};
  if (fstat(output_fd_, &info) != 0 || info.st_size <= 0) return "";
  const auto size = static_cast<size_t>(info.st_size);
  const size_t take = std::min(size, bytes_max);
  std::string text(take, '\0');
  const ssize_t count = pread(output_fd_, text.data(), take, static_cast<off_t>(size - take));
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return text;
}

}  // namespace annulus::cli
