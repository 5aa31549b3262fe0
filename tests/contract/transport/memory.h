// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

namespace annulus::transport {

// Memory that the program cannot touch itself, for the suite to run over. Thread safe.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual void* Allocate(size_t bytes) = 0;
  virtual void Free(void* memory) = 0;
  virtual void Upload(void* device, const void* host, size_t bytes) = 0;
  virtual void Download(void* host, const void* device, size_t bytes) = 0;
  // What a transport did that it must not, since the last call; "" when nothing is known.
  virtual std::string Violations() { return ""; }
};

}  // namespace annulus::transport
