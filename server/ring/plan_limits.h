// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

// What a plan may hold at most. The parser, the checker and the planner refuse more.
namespace annulus::ring {

inline constexpr int kMaxRanks = 4096;
// Tiles (rank, owner) that the planner lays out: 512 ranks all to all, about 120 MiB of JSON.
inline constexpr int64_t kMaxPlannedTiles = int64_t{1} << 18;
inline constexpr size_t kMaxOps = size_t{1} << 22;  // computes, and transfers
inline constexpr int kMaxSteps = 1 << 20;
inline constexpr size_t kMaxRangesPerList = 4096;
inline constexpr size_t kMaxSlotName = 32;  // characters, [a-z0-9_.-]
// JSON text of a plan.
inline constexpr size_t kMaxJsonBytes = size_t{192} << 20;
inline constexpr size_t kMaxJsonValues = size_t{1} << 24;
inline constexpr int kMaxJsonDepth = 6;

}  // namespace annulus::ring
