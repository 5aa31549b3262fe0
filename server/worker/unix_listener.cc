// SPDX-License-Identifier: Apache-2.0
#include "server/worker/unix_listener.h"

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::worker {
namespace {

constexpr int kBacklog = 64;

struct Address {
  sockaddr_un value{};
  socklen_t length = 0;
};

absl::StatusOr<Address> MakeAddress(const std::string& path) {
  Address address;
  address.value.sun_family = AF_UNIX;
  // One byte stays zero, which also ends the path for programs that print it.
  if (path.size() >= sizeof(address.value.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("region socket path of ", path.size(),
                                                   " bytes, at most ",
                                                   sizeof(address.value.sun_path) - 1, ": ", path));
  }
  std::memcpy(address.value.sun_path, path.data(), path.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  if (path[0] == '@') {
    address.value.sun_path[0] = '\0';
  } else {
    ++address.length;
  }
  return address;
}

absl::StatusOr<UniqueFd> MakeSocket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "socket for regions");
  return fd;
}

// A socket file outlives the process that made it: whether it is served shows only by connecting.
absl::Status RemoveStaleSocket(const std::string& path, const Address& address) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  if (!S_ISSOCK(info.st_mode)) {
    return absl::AlreadyExistsError(absl::StrCat("region socket: ", path, " is not a socket"));
  }
  ANNULUS_ASSIGN_OR_RETURN(const UniqueFd probe, MakeSocket());
  const int result =
      connect(probe.get(), reinterpret_cast<const sockaddr*>(&address.value), address.length);
  if (result == 0 || errno != ECONNREFUSED) {
    return absl::AlreadyExistsError(absl::StrCat("region socket: another process serves ", path));
  }
  if (unlink(path.c_str()) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("unlink ", path));
  return absl::OkStatus();
}

// Abstract, so that nothing is left behind however this process ends.
absl::StatusOr<std::string> RandomName() {
  char bits[16];
  if (getrandom(bits, sizeof(bits), 0) != static_cast<ssize_t>(sizeof(bits))) {
    return absl::ErrnoToStatus(errno, "getrandom");
  }
  return absl::StrCat("@annulus-", absl::BytesToHexString(absl::string_view(bits, sizeof(bits))));
}

}  // namespace

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

absl::StatusOr<UnixListener> UnixListener::Create(const std::string& path) {
  UnixListener listener;
  listener.path_ = path;
  if (path.empty()) {
    ANNULUS_ASSIGN_OR_RETURN(listener.path_, RandomName());
  }
  const std::string name = listener.path_;
  ANNULUS_ASSIGN_OR_RETURN(const Address address, MakeAddress(name));
  if (name[0] != '@') ANNULUS_RETURN_IF_ERROR(RemoveStaleSocket(name, address));

  ANNULUS_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket());
  // The mode of the socket is that of the file which bind creates: set before, so that it is never
  // open to others.
  fchmod(fd.get(), 0600);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.value), address.length) != 0) {
    const int error = errno;
    if (error == EADDRINUSE) {
      return absl::AlreadyExistsError(absl::StrCat("region socket: another process serves ", name));
    }
    return absl::ErrnoToStatus(error, absl::StrCat("bind ", name));
  }
  listener.fd_ = std::move(fd);
  if (listen(listener.fd(), kBacklog) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("listen on ", name));
  }
  return listener;
}

UnixListener::~UnixListener() {
  // Only what was bound here is ours to remove.
  if (fd_.valid() && !path_.empty() && path_[0] != '@') unlink(path_.c_str());
}

}  // namespace annulus::worker
