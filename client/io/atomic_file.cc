// SPDX-License-Identifier: Apache-2.0
#include "client/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/io/errno_status.h"
#include "server/base/status_macros.h"

namespace annulus::io {
namespace {

std::string FolderOf(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder.string();
}

// Where `path` leads: a link is followed, so that the rename replaces its target and not the link.
absl::StatusOr<std::string> Resolve(const std::string& path) {
  if (path.empty() || path.back() == '/') {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' does not name a file"));
  }
  std::error_code error;
  std::string resolved = path;
  if (std::filesystem::is_symlink(path, error)) {
    resolved = std::filesystem::weakly_canonical(path, error).string();
    if (error) return ErrnoStatus(error.value(), absl::StrCat("cannot follow ", path));
  }
  struct stat info = {};
  if (stat(resolved.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", path, ": it exists and is not a regular file"));
  }
  return resolved;
}

std::string TemporaryName(const std::string& path) {
  std::random_device random;
  const auto name = std::filesystem::path(path).filename().string();
  // Cut, so that a long name and the suffix still fit in the 255 bytes of a file name.
  return absl::StrCat(FolderOf(path), "/.", name.substr(0, 200), ".", absl::Hex(random()),
                      absl::Hex(random()), ".tmp");
}

absl::Status SyncFolder(const std::string& path) {
  const std::string folder = FolderOf(path);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("cannot open the folder ", folder));
  // EINVAL: a file system without sync of folders; there is nothing more to be had.
  const bool failed = fsync(fd) != 0 && errno != EINVAL;
  const int error = errno;
  close(fd);
  return failed ? ErrnoStatus(error, absl::StrCat("cannot sync ", folder)) : absl::OkStatus();
}

}  // namespace

AtomicFile::AtomicFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      fd_(std::exchange(other.fd_, -1)) {}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  ANNULUS_ASSIGN_OR_RETURN(std::string resolved, Resolve(path));
  std::string temporary = TemporaryName(resolved);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("cannot write ", path));
  return AtomicFile(std::move(resolved), std::move(temporary), fd);
}

absl::Status AtomicFile::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, absl::StrCat("cannot write ", path_));
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Append(std::string_view text) {
  return Append(std::as_bytes(std::span(text)));
}

absl::Status AtomicFile::Commit() {
  if (fsync(fd_) != 0) return ErrnoStatus(errno, absl::StrCat("cannot sync ", path_));
  if (close(std::exchange(fd_, -1)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cannot write ", path_));
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cannot write ", path_));
  }
  temporary_.clear();
  return SyncFolder(path_);
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view text) {
  ANNULUS_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  ANNULUS_RETURN_IF_ERROR(file.Append(text));
  return file.Commit();
}

absl::Status CheckWritable(const std::string& path) { return AtomicFile::Create(path).status(); }

}  // namespace annulus::io
