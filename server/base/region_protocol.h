// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace annulus {

// How a client on the same host hands a memfd region to a worker, over the worker's UNIX stream
// socket (its path is in SessionOpened.region_socket). The client sends one RegionRequest per
// message, with the descriptor as SCM_RIGHTS for kAdd; the worker answers each with a RegionReply.
// The memfd must be sealed with F_SEAL_SHRINK and F_SEAL_GROW. The worker refuses peers of another
// user (SO_PEERCRED). Regions are leased: they go when the connection or the session ends. All
// fields are in host byte order (same host by construction).
struct RegionRequest {
  uint32_t magic = 0x414e5247;  // "ANRG"
  uint32_t version = 1;
  uint32_t op = 0;  // 1: add, 2: remove
  uint32_t reserved = 0;
  char session_id[32] = {};  // hex, as in SessionOpened
  uint64_t region_id = 0;
  uint64_t generation = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(RegionRequest) == 72);

struct RegionReply {
  uint32_t magic = 0x414e5250;  // "ANRP"
  uint32_t code = 0;            // absl::StatusCode
  char message[248] = {};       // zero-terminated
};
static_assert(sizeof(RegionReply) == 256);

}  // namespace annulus
