// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/facts.h"

#include <cstdio>

#include "server/transport/nccl/nccl_api.h"

namespace annulus::transport::nccl {

std::string EncodeFacts(const Facts& facts) {
  return std::to_string(facts.wire_version) + " " + std::to_string(facts.nccl_version) + " " +
         std::to_string(facts.driver_version) + " " + facts.device;
}

std::string WhyRefused(const Facts& own, int32_t leader, std::string_view said, int32_t rank) {
  const std::string text(said);
  int wire = 0;
  int nccl = 0;
  int driver = 0;
  const std::string who = "rank " + std::to_string(rank);
  const std::string other = ", rank " + std::to_string(leader) + " has ";
  if (std::sscanf(text.c_str(), "%d %d %d", &wire, &nccl, &driver) != 3) {
    return who + " does not say which versions it has";
  }
  if (wire != own.wire_version) {
    return who + " speaks version " + std::to_string(wire) + " of the transport's messages" +
           other + std::to_string(own.wire_version);
  }
  if (nccl != own.nccl_version) {
    return who + " has NCCL " + VersionWords(nccl) + other + VersionWords(own.nccl_version) +
           ": all ranks of a group need the same";
  }
  return "";
}

}  // namespace annulus::transport::nccl
