// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "annulus/types.h"

namespace annulus::client {

class Region;

// An allocation of device memory as another process can be told of it, by whoever exported it.
struct DeviceMemoryHandle {
  enum class Kind {
    kCudaIpc,     // `ipc`: a cudaIpcMemHandle_t of the allocation
    kDescriptor,  // `descriptor`: of cuMemExportToShareableHandle, a POSIX file descriptor
  };
  Kind kind = Kind::kCudaIpc;
  std::array<uint8_t, 64> ipc{};
  int descriptor = -1;          // stays the caller's; duplicated
  size_t allocation_bytes = 0;  // of the whole allocation, as it was made
  size_t offset = 0;            // of the leased memory in it
  std::string bus_id;           // of its device, as cudaDeviceGetPCIBusId has it: "0000:3b:00.0"
};

// Memory on the GPU of the worker beside this process, used there in place: see
// RankClient::LeaseDeviceMemory. The caller keeps the allocation alive until this is destroyed and
// no call uses it any more. Movable.
class DeviceRegion {
 public:
  DeviceRegion() = default;
  explicit DeviceRegion(std::shared_ptr<Region> region) : region_(std::move(region)) {}

 private:
  std::shared_ptr<Region> region_;
};

}  // namespace annulus::client
