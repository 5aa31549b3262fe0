// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/plan.h"

namespace annulus::worker {

// One rank's part of a checked plan, sorted by step, with what follows from the plan alone: which
// tokens each slot holds whenever it is read, which buffers gradients land in before they are added
// and when a gradient slot must be zeroed. Independent of tensor shapes.
//
// A step runs: apply what is due, post, compute. `due` of the last entry (index plan.steps) is
// applied after the last step.

inline constexpr int kOwnSlotId = -1;

struct SlotUse {
  std::string name;
  bool gradient = false;
  int64_t capacity_tokens = 0;
};

// One end of a transfer.
struct TransferOp {
  const ring::Transfer* transfer = nullptr;
  int index = 0;  // in plan.transfers: the same on every rank
  bool send = false;
  int peer = 0;
  int slot = kOwnSlotId;
  // Tokens of the rows of `slot`: when it is read (send) or after it was written (receive).
  const ring::TokenRanges* slot_tokens = nullptr;
  // Gradients only: a buffer of program.receive_staging, where a receive lands before it is added,
  // or of send_staging, where a send is rounded to the wire's type.
  int staging = -1;
  bool zero_first = false;  // receive of gradients into a slot that holds nothing yet
};

struct ComputeOp {
  const ring::Compute* compute = nullptr;
  int slot = kOwnSlotId;
  const ring::TokenRanges* slot_tokens = nullptr;
  int into = -1;  // backward only
  const ring::TokenRanges* into_tokens = nullptr;
  bool zero_first = false;
  const char* label = "";  // static: name of the slot
};

struct StepOps {
  std::vector<int> due;    // indices into `transfers`, receives before sends
  std::vector<int> posts;  // the same order
  std::vector<int> computes;
};

struct RankProgram {
  std::shared_ptr<const ring::Plan> plan;
  int rank = 0;
  bool backward = false;
  const ring::RankShard* shard = nullptr;
  std::vector<SlotUse> slots;
  // Capacity in tokens of each staging buffer.
  std::vector<int64_t> receive_staging;
  std::vector<int64_t> send_staging;  // needed only when the wire's type is not the slots'
  std::vector<TransferOp> transfers;
  std::vector<ComputeOp> computes;
  std::vector<StepOps> steps;  // plan.steps + 1
  // KV kept after a forward or started from in a backward; slot -1: none.
  int resident_slot = -1;
  const ring::TokenRanges* resident_tokens = nullptr;
  // Backward: where dK, dV end, the tokens of its rows, and whether nothing was ever added to it.
  int home_slot = -1;
  const ring::TokenRanges* home_tokens = nullptr;
  bool home_empty = false;
};

// INVALID_ARGUMENT for a plan that cannot be run: a slot read before it is filled, a slot used for
// KV and for gradients, a gradient slot whose tokens no transfer covers.
absl::StatusOr<std::shared_ptr<const RankProgram>> CompileForRank(
    std::shared_ptr<const ring::Plan> plan, int rank);

}  // namespace annulus::worker
