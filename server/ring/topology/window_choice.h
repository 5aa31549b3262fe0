// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace annulus::ring {

struct WindowChoice {
  int window_size = 1;
  std::string reason;
};

// The window that suits ranks on these nodes: the ranks of a node where all have as many, so that
// an inner ring is a node; else the largest number that divides the ranks of every node, so that no
// inner ring leaves one; else, and where every node has one rank, a single ring. It always divides
// the number of ranks. `nodes`: the node of every rank, at least one.
WindowChoice ChooseWindow(const std::vector<int>& nodes);

}  // namespace annulus::ring
