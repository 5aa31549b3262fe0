// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace annulus::cli {

// A program started beside us, in a process group of its own, with its output kept in memory. To be
// started from the main thread: --die-with-parent binds a child to the thread that made it. The
// destructor kills what still runs.
class ChildProcess {
 public:
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::string& program,
                                                             const std::vector<std::string>& args);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  bool Running();
  // Of a process that ended by itself; -1 while it runs or if a signal ended it.
  int exit_code() const { return exit_code_; }
  void Signal(int number);
  // False if it still runs at the deadline.
  bool WaitUntil(absl::Time deadline);
  // The last lines of what it wrote, at most `bytes_max`.
  std::string Output(size_t bytes_max) const;

 private:
  ChildProcess(pid_t pid, int output_fd) : pid_(pid), output_fd_(output_fd) {}
  const pid_t pid_;
  const int output_fd_;
  bool reaped_ = false;
  int exit_code_ = -1;
};

}  // namespace annulus::cli
