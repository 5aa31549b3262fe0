// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything that the transport asks of CUDA, so that the rest of it is built and tested without.
// There are two devices: runtime_device.cc over the CUDA runtime, and an emulation in the tests.
// Which one is there is decided by what is linked.
//
// Failures: INVALID_ARGUMENT for memory that cannot be used, RESOURCE_EXHAUSTED for memory and
// mappings, INTERNAL for the rest, with the name of the CUDA call and CUDA's own words. Thread
// safe, except that one stream is used from one thread at a time. Nothing waits for the device.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/transport/host/unique_fd.h"

namespace annulus::transport::cuipc {

// Addresses of a device are numbers here, summed and never read.
inline void* PointerTo(uint64_t address) {
  return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

// What lies at an address: host memory, or a part of a whole allocation of the device.
struct Allocation {
  bool on_device = false;
  uint64_t id = 0;    // of the device's; a process never has two with one id, not even in turn
  uint64_t base = 0;  // address of its first byte
  size_t bytes = 0;
};

// An allocation as another process is told of it.
struct SharedMemory {
  Allocation allocation;          // as its owner sees it
  std::array<uint8_t, 64> ipc{};  // cudaIpcMemHandle_t, where there is no descriptor
  UniqueFd descriptor;            // of CUDA's virtual memory
};

struct Copy {
  void* to = nullptr;
  const void* from = nullptr;
  size_t bytes = 0;

  bool operator==(const Copy&) const = default;
};

class CopyDevice {
 public:
  using Stream = void*;
  using Event = void*;

  virtual ~CopyDevice() = default;

  // INVALID_ARGUMENT: memory of another device, managed memory, or an address of nothing.
  virtual absl::StatusOr<Allocation> Find(const void* address) = 0;

  // INVALID_ARGUMENT: the allocation cannot be given to another process.
  virtual absl::StatusOr<SharedMemory> Export(const Allocation& allocation) = 0;
  // Maps what another process exported, or this one (`own`), until Release. The address of its
  // first byte.
  virtual absl::StatusOr<void*> Import(const SharedMemory& memory, bool own) = 0;
  virtual void Release(void* imported) = 0;

  // A stream ahead of compute. Nothing may be enqueued any more when it is destroyed.
  virtual absl::StatusOr<Stream> CreateStream() = 0;
  virtual void DestroyStream(Stream stream) = 0;
  virtual absl::StatusOr<Event> CreateEvent() = 0;
  virtual void DestroyEvent(Event event) = 0;

  // Enqueues copies between device memories, in no order among them. After a failure some may have
  // been enqueued.
  virtual absl::Status Enqueue(absl::Span<const Copy> copies, Stream stream) = 0;
  virtual absl::Status Record(Event event, Stream stream) = 0;
  // Whether all that was enqueued before the last Record is over and visible to whatever starts
  // afterwards on any device. A failure of it is reported here; nothing is touched any more then.
  virtual absl::StatusOr<bool> Reached(Event event) = 0;
};

// INVALID_ARGUMENT: no such device. RESOURCE_EXHAUSTED: no driver, or none that answers.
absl::StatusOr<std::unique_ptr<CopyDevice>> OpenCopyDevice(int ordinal);

}  // namespace annulus::transport::cuipc
