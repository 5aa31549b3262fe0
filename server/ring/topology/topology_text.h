// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/ring/topology/topology.h"

namespace annulus::ring {

// Windows wider than this, and more of them than this, are not drawn.
inline constexpr int kDrawnWindow = 16;
inline constexpr int kDrawnWindows = 32;

// For people: what was decided and why, a table of the ranks, and a picture of the rings.
std::string TopologyToText(const Topology& topology);
// The same as a section of a Markdown page.
std::string TopologyToMarkdown(const Topology& topology);
// For programs, schema annulus.topology.v1.
std::string TopologyToJson(const Topology& topology);

}  // namespace annulus::ring
