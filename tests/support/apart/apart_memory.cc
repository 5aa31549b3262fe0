// SPDX-License-Identifier: Apache-2.0
#include "tests/support/apart/apart_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

namespace annulus::testing_support {

ApartMemory& ApartMemory::Get() {
  static ApartMemory memory;
  return memory;
}

void* ApartMemory::Map(size_t bytes, int fd) {
  Block block;
  block.bytes = std::max<size_t>(bytes, 1);
  block.fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : memfd_create("apart", MFD_CLOEXEC);
  if (block.fd < 0) return nullptr;
  const bool sized = fd >= 0 || ftruncate(block.fd, static_cast<off_t>(block.bytes)) == 0;
  void* given = mmap(nullptr, block.bytes, PROT_NONE, MAP_SHARED, block.fd, 0);
  void* alias = mmap(nullptr, block.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, block.fd, 0);
  if (!sized || given == MAP_FAILED || alias == MAP_FAILED) {
    if (given != MAP_FAILED) munmap(given, block.bytes);
    if (alias != MAP_FAILED) munmap(alias, block.bytes);
    close(block.fd);
    return nullptr;
  }
  block.given = static_cast<uint8_t*>(given);
  block.alias = static_cast<uint8_t*>(alias);
  std::lock_guard lock(mutex_);
  blocks_[block.given] = block;
  return given;
}

bool ApartMemory::Unmap(void* given) {
  Block block;
  {
    std::lock_guard lock(mutex_);
    const Block* found = Find(given);
    if (found == nullptr) return false;
    block = *found;
    blocks_.erase(block.given);
  }
  munmap(block.given, block.bytes);
  munmap(block.alias, block.bytes);
  close(block.fd);
  return true;
}

const ApartMemory::Block* ApartMemory::Find(const void* given) const {
  const auto* address = static_cast<const uint8_t*>(given);
  auto it = blocks_.upper_bound(address);
  if (it == blocks_.begin()) return nullptr;
  const Block& block = std::prev(it)->second;
  return address < block.given + block.bytes ? &block : nullptr;
}

uint8_t* ApartMemory::Alias(const void* given, size_t* rest) const {
  std::lock_guard lock(mutex_);
  const Block* block = Find(given);
  if (block == nullptr) return nullptr;
  const size_t offset = static_cast<size_t>(static_cast<const uint8_t*>(given) - block->given);
  if (rest != nullptr) *rest = block->bytes - offset;
  return block->alias + offset;
}

int ApartMemory::Export(const void* given, size_t* offset, size_t* bytes) const {
  std::lock_guard lock(mutex_);
  const Block* block = Find(given);
  if (block == nullptr) return -1;
  *offset = static_cast<size_t>(static_cast<const uint8_t*>(given) - block->given);
  *bytes = block->bytes;
  return fcntl(block->fd, F_DUPFD_CLOEXEC, 0);
}

int64_t ApartMemory::count() const {
  std::lock_guard lock(mutex_);
  return static_cast<int64_t>(blocks_.size());
}

}  // namespace annulus::testing_support
