// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace annulus::worker {

// A file descriptor that closes itself.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~UniqueFd() { reset(-1); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd);

 private:
  int fd_ = -1;
};

// A listening UNIX stream socket; the file that it may have in the file system goes with it.
class UnixListener {
 public:
  // "": abstract, with a random name; "@name": abstract; else that path (mode 0600). A socket that
  // nobody serves any more is replaced. INVALID_ARGUMENT: the path does not fit into a socket
  // address. ALREADY_EXISTS: the path is served, or is not a socket.
  static absl::StatusOr<UnixListener> Create(const std::string& path);

  UnixListener(UnixListener&&) = default;
  UnixListener& operator=(UnixListener&&) = delete;
  ~UnixListener();

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  UnixListener() = default;

  UniqueFd fd_;
  std::string path_;
};

}  // namespace annulus::worker
