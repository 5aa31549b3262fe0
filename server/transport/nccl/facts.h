// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace annulus::transport::nccl {

// What the members of a communicator must, or had better, have in common.
struct Facts {
  int wire_version = 0;
  int nccl_version = 0;    // 22809
  int driver_version = 0;  // of CUDA
  std::string device;
};

std::string EncodeFacts(const Facts& facts);

// "" when the member of rank `rank` may join the leader of rank `leader`; otherwise what differs,
// with both values. `said` comes from a peer.
std::string WhyRefused(const Facts& own, int32_t leader, std::string_view said, int32_t rank);

}  // namespace annulus::transport::nccl
