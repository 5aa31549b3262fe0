// SPDX-License-Identifier: Apache-2.0
#include "client/src/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/src/request_id.h"
#include "server/base/status_macros.h"

namespace annulus::client {
namespace {

absl::Status SystemRefused(const char* what, size_t bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("shared memory of ", bytes, " bytes: ", what, ": ", std::strerror(errno)));
}

absl::StatusOr<int> SealedMemfd(size_t bytes) {
  const int fd = memfd_create("annulus-region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return SystemRefused("memfd_create", bytes);
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    absl::Status status = SystemRefused("sizing and sealing a memfd", bytes);
    close(fd);
    return status;
  }
  return fd;
}

Region::Identity NewIdentity(int fd) {
  static std::atomic<uint64_t> next{1};
  return {.id = next.fetch_add(1), .generation = RandomBits() | 1, .fd = fd};
}

}  // namespace

Region::Identity Region::identity() const {
  absl::MutexLock lock(&mutex_);
  return identity_;
}

bool Region::spoiled() const {
  absl::MutexLock lock(&mutex_);
  return spoiled_;
}

Region::~Region() {
  if (!device_) munmap(data_, size_);
  const Identity last = identity();
  if (last.fd >= 0) close(last.fd);
  if (const auto registry = registry_.lock()) {
    registry->Remove(*this);
    registry->Gone(last.id);
  }
}

absl::Status Region::Rehome() {
  if (device_) {
    absl::MutexLock lock(&mutex_);
    spoiled_ = true;
    return absl::OkStatus();
  }
  ANNULUS_ASSIGN_OR_RETURN(const int fd, SealedMemfd(size_));
  void* fresh = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fresh == MAP_FAILED) {
    absl::Status status = SystemRefused("mmap", size_);
    close(fd);
    return status;
  }
  std::memcpy(fresh, data_, size_);
  // mremap replaces the old mapping in one step: no other thread's mmap can slip in between.
  if (mremap(fresh, size_, size_, MREMAP_MAYMOVE | MREMAP_FIXED, data_) == MAP_FAILED) {
    absl::Status status = SystemRefused("mremap", size_);
    munmap(fresh, size_);
    close(fd);
    return status;
  }
  Identity old;
  {
    absl::MutexLock lock(&mutex_);
    old = std::exchange(identity_, NewIdentity(fd));
  }
  close(old.fd);
  if (const auto registry = registry_.lock()) registry->Gone(old.id);
  return absl::OkStatus();
}

RegionRegistry::RegionRegistry(std::function<void(uint64_t)> on_gone)
    : on_gone_(std::move(on_gone)) {}

absl::StatusOr<std::shared_ptr<Region>> RegionRegistry::Create(size_t size) {
  if (size == 0) size = 1;
  ANNULUS_ASSIGN_OR_RETURN(const int fd, SealedMemfd(size));
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    absl::Status status = SystemRefused("mmap", size);
    close(fd);
    return status;
  }
  std::shared_ptr<Region> region(
      new Region(weak_from_this(), static_cast<uint8_t*>(data), size, NewIdentity(fd)));
  absl::MutexLock lock(&mutex_);
  regions_[region->data()] = region;
  return region;
}

absl::StatusOr<std::shared_ptr<Region>> RegionRegistry::Adopt(void* data, size_t size,
                                                              const DeviceMemoryHandle& handle) {
  if (data == nullptr || size == 0 || handle.offset > handle.allocation_bytes ||
      size > handle.allocation_bytes - handle.offset) {
    return absl::InvalidArgumentError(absl::StrCat(size, " bytes from ", handle.offset,
                                                   " on of device memory of ",
                                                   handle.allocation_bytes, " bytes"));
  }
  const bool by_descriptor = handle.kind == DeviceMemoryHandle::Kind::kDescriptor;
  const int fd = by_descriptor ? fcntl(handle.descriptor, F_DUPFD_CLOEXEC, 0) : -1;
  if (by_descriptor && fd < 0) {
    return absl::InvalidArgumentError(absl::StrCat("descriptor ", handle.descriptor,
                                                   " of device memory: ", std::strerror(errno)));
  }
  RegionDeviceMemory told;
  told.kind = by_descriptor ? 1 : 0;
  std::copy(handle.ipc.begin(), handle.ipc.end(), told.ipc);
  told.allocation_bytes = handle.allocation_bytes;
  told.offset = handle.offset;
  absl::AsciiStrToLower(handle.bus_id).copy(told.bus_id, sizeof(told.bus_id) - 1);
  std::shared_ptr<Region> region(
      new Region(weak_from_this(), static_cast<uint8_t*>(data), size, NewIdentity(fd), told));
  absl::MutexLock lock(&mutex_);
  regions_[region->data()] = region;
  return region;
}

std::shared_ptr<Region> RegionRegistry::Find(const void* data, size_t bytes) const {
  const auto* begin = static_cast<const uint8_t*>(data);
  std::shared_ptr<Region> region;  // outlives the lock: its destructor takes it
  absl::MutexLock lock(&mutex_);
  auto it = regions_.upper_bound(begin);
  if (it == regions_.begin()) return nullptr;
  region = std::prev(it)->second.lock();
  if (region == nullptr) return nullptr;
  const size_t offset = static_cast<size_t>(begin - region->data());
  if (offset > region->size() || bytes > region->size() - offset) return nullptr;
  return region;
}

void RegionRegistry::Remove(const Region& region) {
  absl::MutexLock lock(&mutex_);
  const auto it = regions_.find(region.data());
  // Another region may already have been mapped at the address.
  if (it != regions_.end() && it->second.expired()) regions_.erase(it);
}

}  // namespace annulus::client
