// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <random>

#include "server/metrics/timeline.h"

namespace annulus::metrics {

inline constexpr int kTicks = 40;  // random timelines last at most so many nanoseconds
inline constexpr int kSteps = 4;

// Anything goes: ops of all kinds overlapping at will, some empty, some backwards, steps missing.
inline Timeline RandomTimeline(std::mt19937& random) {
  const auto below = [&random](int limit) {
    return static_cast<int>(random() % static_cast<unsigned>(limit));
  };
  Timeline timeline;
  timeline.end_ns = kTicks;
  for (int i = below(14); i > 0; --i) {
    Op op;
    op.kind = static_cast<OpKind>(below(8));
    op.step = below(kSteps + 1) - (below(6) == 0 ? 1 : 0);
    op.level = below(2) == 0 ? Level::kInner : Level::kOuter;
    op.peer = below(5) - 1;
    op.start_ns = below(kTicks);
    op.end_ns = op.start_ns + below(12) - 1;
    if (op.end_ns > kTicks) op.end_ns = kTicks;
    op.bytes = static_cast<uint64_t>(below(100));
    timeline.ops.push_back(op);
  }
  return timeline;
}

}  // namespace annulus::metrics
