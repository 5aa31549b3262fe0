// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace annulus {

// How a client on the same host hands a region of memory to a worker, over the worker's UNIX stream
// socket (its path is in SessionOpened.region_socket). The client sends one RegionRequest per
// message, with the memfd's descriptor as SCM_RIGHTS for an add; the worker answers each with a
// RegionReply. A request to add device memory is followed at once by a RegionDeviceMemory, and
// carries a descriptor where its kind has one. A worker that does not know the operation says so.
// The memfd must be sealed with F_SEAL_SHRINK and F_SEAL_GROW. The worker refuses peers of another
// user (SO_PEERCRED). Regions are leased: they go when the connection or the session ends. All
// fields are in host byte order (same host by construction).
struct RegionRequest {
  uint32_t magic = 0x414e5247;  // "ANRG"
  uint32_t version = 1;
  uint32_t op = 0;  // 1: add, 2: remove, 3: add device memory
  uint32_t reserved = 0;
  char session_id[32] = {};  // hex, as in SessionOpened
  uint64_t region_id = 0;
  uint64_t generation = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(RegionRequest) == 72);

// Memory on the worker's device that the client, or a process it knows, has exported; `bytes` of
// the request from `offset` on are leased and used in place.
struct RegionDeviceMemory {
  uint32_t kind = 0;  // 0: a CUDA IPC handle, 1: a descriptor of CUDA's virtual memory
  uint32_t reserved = 0;
  uint8_t ipc[64] = {};
  uint64_t allocation_bytes = 0;
  uint64_t offset = 0;   // of the leased memory in the allocation
  char bus_id[32] = {};  // of the device, "0000:3b:00.0", zero-terminated
};
static_assert(sizeof(RegionDeviceMemory) == 120);

struct RegionReply {
  uint32_t magic = 0x414e5250;  // "ANRP"
  uint32_t code = 0;            // absl::StatusCode
  char message[248] = {};       // zero-terminated
};
static_assert(sizeof(RegionReply) == 256);

}  // namespace annulus
