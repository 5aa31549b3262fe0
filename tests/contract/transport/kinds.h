// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/transport/host/host_plugin.h"
#include "tests/contract/transport/mesh.h"

namespace annulus::transport {

inline Kind HostShm() {
  return {.name = "HostShm", .table = [] { return HostPlugin(); }, .one_host = true};
}

inline Kind HostTcp() {
  return {.name = "HostTcp", .table = [] { return HostPlugin(); }, .one_host = false};
}

// A new transport joins the suite by being listed here.
inline std::vector<Kind> AllKinds() { return {HostShm(), HostTcp()}; }

inline std::string KindName(const ::testing::TestParamInfo<Kind>& info) { return info.param.name; }

}  // namespace annulus::transport
