// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace annulus::testing_support {

// The memory of every apart device of the process: what is given out cannot be touched, its alias
// can. Thread safe.
class ApartMemory {
 public:
  static ApartMemory& Get();

  // Null when the system refuses. With a descriptor the memory is that of `fd`, which stays the
  // caller's; -1: fresh.
  void* Map(size_t bytes, int fd = -1);
  bool Unmap(void* given);  // anywhere in it; false: not from Map

  // The alias of an address in memory from Map, null for any other; `rest`: bytes from there on.
  uint8_t* Alias(const void* given, size_t* rest = nullptr) const;
  // A new descriptor of the memory that holds `given`, with the place in it; -1: not from Map.
  int Export(const void* given, size_t* offset, size_t* bytes) const;
  int64_t count() const;

 private:
  struct Block {
    uint8_t* given = nullptr;
    uint8_t* alias = nullptr;
    size_t bytes = 0;
    int fd = -1;
  };
  const Block* Find(const void* given) const;  // with mutex_ held

  mutable std::mutex mutex_;
  std::map<const uint8_t*, Block> blocks_;  // guarded by mutex_; by `given`
};

}  // namespace annulus::testing_support
