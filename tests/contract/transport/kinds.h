// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/transport/host/host_plugin.h"
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

// Those whose ranks may live in processes of their own.
std::vector<Kind> ProcessKinds();
// A new transport joins the suite by being listed in kinds.cc.
std::vector<Kind> AllKinds();

inline std::string KindName(const ::testing::TestParamInfo<Kind>& info) { return info.param.name; }

}  // namespace annulus::transport
