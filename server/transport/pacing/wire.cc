// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "server/transport/pacing/pacing.h"

namespace annulus::transport {
namespace {

int32_t NodeOf(const PacingModel& model, int32_t rank) {
  if (static_cast<size_t>(rank) < model.nodes.size()) return model.nodes[static_cast<size_t>(rank)];
  return rank / std::max(model.ranks_per_node, 1);
}

}  // namespace

annulusLevel LevelBetween(const PacingModel& model, int32_t a, int32_t b) {
  return NodeOf(model, a) == NodeOf(model, b) ? ANNULUS_LEVEL_INNER : ANNULUS_LEVEL_OUTER;
}

int64_t Wire::TransferNs(uint64_t bytes) const {
  return emulated()
             ? static_cast<int64_t>(static_cast<double>(bytes) / link_.bytes_per_second * 1e9)
             : 0;
}

int64_t Wire::Reserve(int64_t earliest_ns, uint64_t bytes) {
  const int64_t start_ns = std::max(earliest_ns, free_ns_);
  free_ns_ = start_ns + TransferNs(bytes);
  return start_ns;
}

void Wire::Postpone(int64_t start_ns, uint64_t bytes) {
  free_ns_ = std::max(free_ns_, start_ns + TransferNs(bytes));
}

}  // namespace annulus::transport
