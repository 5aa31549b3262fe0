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
#include "server/base/status_macros.h"

namespace annulus::worker {

absl::StatusOr<std::shared_ptr<const Region>> Region::Map(int fd, uint64_t bytes,
                                                          uint64_t generation,
                                                          std::shared_ptr<Device> device) {
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
  // The last page is there as a whole.
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const bool pinned = device != nullptr && device->Pin(data, (bytes + page - 1) / page * page);
  return std::shared_ptr<const Region>(
      new Region(data, bytes, generation, Memory::kHost, [=, device = std::move(device)] {
        if (pinned) device->Unpin(data);
        munmap(data, bytes);
      }));
}

absl::StatusOr<std::shared_ptr<const Region>> Region::Import(const DeviceLease& lease,
                                                             uint64_t generation,
                                                             std::shared_ptr<Device> device) {
  const annulusMemoryHandle& handle = lease.handle;
  if (handle.kind != ANNULUS_MEMORY_CUDA_IPC && handle.kind != ANNULUS_MEMORY_DESCRIPTOR) {
    return absl::InvalidArgumentError(
        absl::StrCat("device memory of unknown kind ", static_cast<int>(handle.kind)));
  }
  if (lease.bytes == 0 || handle.offset > handle.bytes ||
      lease.bytes > handle.bytes - handle.offset) {
    return absl::InvalidArgumentError(absl::StrCat(lease.bytes, " bytes from ", handle.offset,
                                                   " on do not lie in device memory of ",
                                                   handle.bytes, " bytes"));
  }
  if (!device->bus_id().empty() && lease.bus_id != device->bus_id()) {
    return absl::InvalidArgumentError(absl::StrCat("the memory lies on device ", lease.bus_id,
                                                   ", this worker's is ordinal ", device->ordinal(),
                                                   ", ", device->bus_id()));
  }
  ANNULUS_ASSIGN_OR_RETURN(void* data, device->Import(handle));
  return std::shared_ptr<const Region>(
      new Region(data, lease.bytes, generation, Memory::kDevice,
                 [data, device = std::move(device)] { device->Release(data); }));
}

Region::~Region() { unmap_(); }

}  // namespace annulus::worker
