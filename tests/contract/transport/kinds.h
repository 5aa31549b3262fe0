// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/transport/host/host_plugin.h"
#include "server/transport/nccl/nccl_plugin.h"
#include "server/transport/pacing/pacing.h"
#include "tests/contract/transport/mesh.h"

namespace annulus::transport {

inline Kind HostShm() {
  return {.name = "HostShm", .table = [] { return HostPlugin(); }, .one_host = true};
}

inline Kind HostTcp() {
  return {.name = "HostTcp", .table = [] { return HostPlugin(); }, .one_host = false};
}

// Wires fast enough to be no burden; what they do to time is the pacing test's business.
inline Kind PacedHost() {
  return {.name = "PacedHost",
          .table =
              [] {
                PacingModel model;
                model.inner = {.bytes_per_second = 4e9, .latency_seconds = 20e-6};
                model.outer = {.bytes_per_second = 1e9, .latency_seconds = 50e-6};
                model.ranks_per_node = 2;
                return PacingTransport(HostPlugin(), model);
              },
          .one_host = true};
}

// Over a model of NCCL and CUDA, whose device memory is this process's own.
inline Kind NcclOverModel() {
  return {.name = "NcclOverModel",
          .table = [] { return NcclPlugin(); },
          .one_host = true,
          .outlives_a_rank = false};
}

// Those whose ranks may live in processes of their own.
inline std::vector<Kind> ProcessKinds() { return {HostShm(), HostTcp(), PacedHost()}; }

// A new transport joins the suite by being listed here.
inline std::vector<Kind> AllKinds() {
  std::vector<Kind> kinds = ProcessKinds();
  kinds.push_back(NcclOverModel());
  return kinds;
}

inline std::string KindName(const ::testing::TestParamInfo<Kind>& info) { return info.param.name; }

}  // namespace annulus::transport
