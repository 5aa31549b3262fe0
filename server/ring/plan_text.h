// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "server/ring/plan.h"

namespace annulus::ring {

// Transfers and tokens of one kind, told apart by level.
struct Traffic {
  // Transfers that the busiest rank sends: n (w - 1) inner and n - 1 outer in a full double-ring
  // forward.
  std::array<int, 2> hops = {0, 0};
  std::array<int64_t, 2> tokens = {0, 0};  // moved by all ranks together
};

// Indexed by Level: [0] inner, [1] outer.
Traffic TrafficOf(const Plan& plan, Payload payload);

// A checked plan for people: what it is, its hops and slots, and up to 16 ranks a table of its
// steps in which each cell names the owner of the KV that a rank attends, with '~' where the mask
// cuts through the tile.
std::string PlanToText(const Plan& plan);

}  // namespace annulus::ring
