// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace annulus::apps {

// How a daemon behaves as a process: signals, its parent, the files it leaves. Exit codes are those
// of the command line too.
enum ExitCode : int {
  kExitDone = 0,
  kExitUsage = 2,
  kExitCouldNotServe = 3,
  kExitFault = 4,
};

// kExitUsage for INVALID_ARGUMENT, else kExitCouldNotServe.
int ExitCodeOf(const absl::Status& status);

// Blocks SIGTERM and SIGINT in this thread and all that it starts, and ignores SIGPIPE. Before the
// first thread, so before the first gRPC object.
void BlockStopSignals();
// Waits for one of them; returns its number.
int AwaitStopSignal();
// After a stop has begun: ends the process with kExitFault should it take longer than `seconds`.
void LimitStop(double seconds);
// SIGTERM for this process when its parent dies, also if that is dead already; a parent that may
// die before this is called says its id in ANNULUS_PARENT_PID.
absl::Status DieWithParent();

// Writes `text` to `path` by way of a file beside it, so that a reader sees all of it or nothing.
absl::Status WriteFileAtomically(const std::string& path, std::string_view text);

struct HostPort {
  std::string host;
  int port = 0;
  std::string ToString() const;  // IPv6 in brackets
};
// "HOST:PORT" or "[IPV6]:PORT". INVALID_ARGUMENT names what is wrong.
absl::StatusOr<HostPort> ParseHostPort(std::string_view text);

// Name of this host; "localhost" if it has none.
std::string HostName();
// Equal for processes that can share memory: same boot of one kernel, same user namespace.
std::string HostId();
// Equal for processes of one host that may open each other's GPU memory: same user, network and PID
// namespace.
std::string IpcScope();

}  // namespace annulus::apps
