// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/shm_ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace annulus::transport {
namespace {

constexpr size_t kDirectionBytes = kRingSlots * kChunkBytes;
constexpr size_t kRingBytes = 2 * kDirectionBytes;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

uint8_t* Map(int fd) {
  void* base = ::mmap(nullptr, kRingBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return base == MAP_FAILED ? nullptr : static_cast<uint8_t*>(base);
}

}  // namespace

std::unique_ptr<ShmRing> ShmRing::Create(UniqueFd* fd) {
  UniqueFd memory(::memfd_create("annulus-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory || ::ftruncate(memory.get(), kRingBytes) != 0 ||
      ::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) {
    return nullptr;
  }
  uint8_t* base = Map(memory.get());
  if (base == nullptr) return nullptr;
  *fd = std::move(memory);
  return std::unique_ptr<ShmRing>(new ShmRing(base, Side::kCreator));
}

std::unique_ptr<ShmRing> ShmRing::Adopt(const UniqueFd& fd) {
  struct stat info {};
  if (!fd || ::fcntl(fd.get(), F_GET_SEALS) != kSeals || ::fstat(fd.get(), &info) != 0 ||
      info.st_size != static_cast<off_t>(kRingBytes)) {
    return nullptr;
  }
  uint8_t* base = Map(fd.get());
  if (base == nullptr) return nullptr;
  return std::unique_ptr<ShmRing>(new ShmRing(base, Side::kReceiver));
}

ShmRing::ShmRing(uint8_t* base, Side side)
    : base_(base),
      out_(side == Side::kCreator ? base : base + kDirectionBytes),
      in_(side == Side::kCreator ? base + kDirectionBytes : base) {}

ShmRing::~ShmRing() { ::munmap(base_, kRingBytes); }

}  // namespace annulus::transport
