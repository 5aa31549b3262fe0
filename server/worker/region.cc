// SPDX-License-Identifier: Apache-2.0
#include "server/worker/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace annulus::worker {

absl::StatusOr<std::shared_ptr<const Region>> Region::Map(int fd, uint64_t bytes,
                                                          uint64_t generation) {
  const auto close_fd = absl::MakeCleanup([fd] { close(fd); });
  if (bytes == 0 || bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError(absl::StrCat("a region cannot have ", bytes, " bytes"));
  }
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the region's descriptor is not a memfd: ", strerror(errno)));
  }
  if ((seals & F_SEAL_SHRINK) == 0) {
    return absl::InvalidArgumentError("the region's memfd is not sealed with F_SEAL_SHRINK");
  }
  struct stat info {};
  if (fstat(fd, &info) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("fstat of the region: ", strerror(errno)));
  }
  if (static_cast<uint64_t>(info.st_size) < bytes) {
    return absl::InvalidArgumentError(absl::StrCat("the region's memfd has ", info.st_size,
                                                   " bytes, ", bytes, " were announced"));
  }
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("mapping a region of ", bytes, " bytes: ", strerror(errno)));
  }
  return std::shared_ptr<const Region>(new Region(static_cast<uint8_t*>(data), bytes, generation));
}

Region::~Region() { munmap(data_, bytes_); }

}  // namespace annulus::worker
