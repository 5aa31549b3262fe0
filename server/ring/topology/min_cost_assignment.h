// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace annulus::ring {

// The column of each row, all different, such that the sum of costs is least. costs[row][column];
// at least as many columns as rows; O(rows^2 * columns). The Hungarian method with potentials
// (Kuhn 1955, Munkres 1957). The same costs give the same answer.
std::vector<int> MinCostAssignment(const std::vector<std::vector<int64_t>>& costs);

}  // namespace annulus::ring
