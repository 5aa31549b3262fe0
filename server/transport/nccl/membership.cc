// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/membership.h"

#include <algorithm>

namespace annulus::transport::nccl {

std::vector<Membership> MembershipsOf(int32_t rank, int32_t size, int32_t window) {
  Membership inner{ANNULUS_LEVEL_INNER, rank % window, {}};
  for (int32_t i = 0; i < window; ++i) inner.ranks.push_back(rank - rank % window + i);
  Membership outer{ANNULUS_LEVEL_OUTER, rank / window, {}};
  for (int32_t other = rank % window; other < size; other += window) outer.ranks.push_back(other);
  std::vector<Membership> memberships;
  if (inner.size() > 1) memberships.push_back(std::move(inner));
  if (outer.size() > 1) memberships.push_back(std::move(outer));
  return memberships;
}

int32_t IndexOf(const Membership& membership, int32_t rank) {
  const auto found = std::find(membership.ranks.begin(), membership.ranks.end(), rank);
  return found == membership.ranks.end() ? -1
                                         : static_cast<int32_t>(found - membership.ranks.begin());
}

int32_t CountPeers(const Membership& membership, const std::vector<bool>& is_peer) {
  const int32_t self = membership.ranks[static_cast<size_t>(membership.index)];
  return static_cast<int32_t>(std::count_if(
      membership.ranks.begin(), membership.ranks.end(),
      [&](int32_t rank) { return rank != self && is_peer[static_cast<size_t>(rank)]; }));
}

const char* LevelName(annulusLevel level) {
  return level == ANNULUS_LEVEL_INNER ? "inner" : "outer";
}

}  // namespace annulus::transport::nccl
