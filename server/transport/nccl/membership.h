// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport::nccl {

// One communicator that a rank belongs to. Member i of it is rank ranks[i]; member 0 leads.
struct Membership {
  annulusLevel level = ANNULUS_LEVEL_INNER;
  int32_t index = 0;  // of this rank
  std::vector<int32_t> ranks;

  int32_t size() const { return static_cast<int32_t>(ranks.size()); }
  int32_t leader() const { return ranks.front(); }
};

// Rank W * w + i belongs to the inner communicator of its window W (ranks W * w .. W * w + w - 1)
// and to the outer one of its index i (ranks i, w + i, 2w + i ...). Those with a single member are
// left out: w = 1 leaves the outer one, w = size the inner one, size = 1 none. Inner comes first.
// Precondition: `window` divides `size`, 0 <= rank < size.
std::vector<Membership> MembershipsOf(int32_t rank, int32_t size, int32_t window);

// Member of `rank`; -1 when it is none.
int32_t IndexOf(const Membership& membership, int32_t rank);

// Members besides this rank that are peers of it. `is_peer`: by rank.
int32_t CountPeers(const Membership& membership, const std::vector<bool>& is_peer);

const char* LevelName(annulusLevel level);

}  // namespace annulus::transport::nccl
