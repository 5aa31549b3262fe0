// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "server/metrics/timeline.h"

namespace annulus::metrics {

// What a rank does over [begin_ns, end_ns), where nothing starts or ends.
struct Instant {
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  bool computing = false;
  bool inner = false;  // an inner transfer of this rank is in flight
  bool outer = false;
  bool waiting = false;
  // While waiting: the peer of the wait that lasts longest, as it is the one that gates the rank.
  int waiting_for = -1;

  bool communicating() const { return inner || outer; }
  bool exposed() const { return communicating() && !computing; }
  bool waiting_for_peer() const { return waiting && !communicating() && !computing; }
  // Unsigned, since a cut may lie at either end of time.
  double seconds() const {
    return 1e-9 *
           static_cast<double>(static_cast<uint64_t>(end_ns) - static_cast<uint64_t>(begin_ns));
  }
};

// Calls `visit` with consecutive instants in order of time, over the whole span of the ops and
// `cuts`: times at which an instant ends whatever happens. Idle instants are visited
// too. Ops that end before they start are ignored. O(n log n) in ops and cuts.
void Sweep(std::span<const Op> ops, std::span<const int64_t> cuts,
           const std::function<void(const Instant&)>& visit);

// Adds an instant to the seconds of `sum` (all but wall_seconds and the bytes): the definitions at
// Summary in timeline.h.
void AddInstant(const Instant& now, Summary& sum);

// The steps' own intervals: result[s] is the start of step s, as timeline.h defines it, and
// result[steps] the end of the last op. A step without ops lasts zero seconds. Starts never
// decrease: an op of a later step that starts early also starts the steps before. `ops` not empty.
std::vector<int64_t> StepStarts(std::span<const Op> ops, int steps);

}  // namespace annulus::metrics
