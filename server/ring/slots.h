// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/ring/plan.h"

namespace annulus::ring {

// What stands in a slot over steps [begin_step, end_step): rows in the order of `rows`. An
// accumulator is zeroed when begin_step begins (plan.h gives the order within a step).
struct SlotLife {
  int begin_step = 0;
  int end_step = 0;
  TokenRanges rows;
};

struct Slot {
  std::string name;  // "" for staging
  Payload payload = Payload::kKv;
  int64_t max_tokens = 0;       // rows to allocate
  std::vector<SlotLife> lives;  // in order; empty for staging
};

// The slots that one rank needs for a checked plan: "own", receive slots, resident, accumulators
// and the staging buffers in which transfers with kAdd land (as few as their times allow). Refers
// to nothing of the plan after construction. Immutable, thread-safe.
class SlotTable {
 public:
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // Takes time in proportion to the plan's computes and transfers.
  SlotTable(const Plan& plan, int rank);

  const std::vector<Slot>& slots() const { return slots_; }

  // Index of a named slot in slots(); kNone if the rank has none of that name.
  size_t IndexOf(absl::string_view name) const;

  // Index in slots() of where plan.transfers[transfer] lands at this rank: its staging slot if it
  // combines with kAdd, else its dst_slot. kNone if this rank is not its destination.
  size_t LandingSlot(size_t transfer) const;

  // What stands in the slot when `step` begins, as a compute of that step or a transfer posted in
  // it finds it; the rows that an arrival due in it is added to. nullptr if nothing.
  const SlotLife* LifeAt(size_t slot, int step) const;

 private:
  size_t SlotNamed(const std::string& name, Payload payload);
  void AddKvLives(const Plan& plan, int rank);
  void AddGradientLives(const Plan& plan, int rank);
  void AssignStaging(const Plan& plan, int rank);

  std::vector<Slot> slots_;
  std::vector<size_t> landing_;  // by transfer
};

// Rows of all slots of that payload that `rank` allocates for the plan, its own KV left out.
int64_t PeakSlotTokens(const Plan& plan, int rank, Payload payload);

}  // namespace annulus::ring
