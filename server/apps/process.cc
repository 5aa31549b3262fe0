// SPDX-License-Identifier: Apache-2.0
#include "server/apps/process.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace annulus::apps {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

absl::Status BadHostPort(std::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("expected HOST:PORT with a port of 0..65535 (IPv6 in brackets), got \"",
                   absl::string_view(text.data(), text.size()), "\""));
}

absl::Status WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, "write");
    text.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

// Such as "net:[4026531840]"; the kind alone where the kernel does not tell.
std::string NamespaceOf(const char* kind) {
  std::array<char, 64> name{};
  const ssize_t length =
      readlink(absl::StrCat("/proc/self/ns/", kind).c_str(), name.data(), name.size() - 1);
  return length > 0 ? name.data() : kind;
}

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kExitDone;
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitCouldNotServe;
}

void BlockStopSignals() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

int AwaitStopSignal() {
  const sigset_t signals = StopSignals();
  int signal = 0;
  while (sigwait(&signals, &signal) != 0) {
  }
  return signal;
}

void LimitStop(double seconds) {
  std::thread([seconds] {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    std::fputs("the stop took too long; exiting now\n", stderr);
    _exit(kExitFault);
  }).detach();
}

absl::Status DieWithParent() {
  const pid_t parent = getppid();
  if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0) return absl::ErrnoToStatus(errno, "PR_SET_PDEATHSIG");
  // It may have died before the request was made: between the two lines above, or even before,
  // which only a parent that told us its id lets us see.
  const char* told = std::getenv("ANNULUS_PARENT_PID");
  int told_pid = 0;
  const bool gone_before =
      told != nullptr && absl::SimpleAtoi(told, &told_pid) && told_pid != parent;
  if (gone_before || getppid() != parent) kill(getpid(), SIGTERM);
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view text) {
  const std::string partial = absl::StrCat(path, ".", getpid(), ".partial");
  const int fd = open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", partial));
  absl::Status status = WriteAll(fd, text);
  close(fd);
  if (status.ok() && std::rename(partial.c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("cannot rename to ", path));
  }
  if (!status.ok()) unlink(partial.c_str());
  return status;
}

std::string HostPort::ToString() const {
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port)
                                             : absl::StrCat("[", host, "]:", port);
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return BadHostPort(text);
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  int port = 0;
  if (!absl::SimpleAtoi(absl::string_view(digits.data(), digits.size()), &port) || port < 0 ||
      port > 65535) {
    return BadHostPort(text);
  }
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.empty() || host.find_first_of("[]:") != std::string_view::npos) {
    return BadHostPort(text);
  }
  return HostPort{std::string(host), port};
}

std::string HostName() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  return name.data();
}

std::string HostId() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return absl::StrCat(boot.empty() ? HostName() : boot, "/", NamespaceOf("user"));
}

std::string IpcScope() {
  return absl::StrCat("uid ", getuid(), ", ", NamespaceOf("net"), ", ", NamespaceOf("pid"));
}

}  // namespace annulus::apps
