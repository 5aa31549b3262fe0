// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "server/transport/transport_plugin.h"
#include "server/worker/rank_program.h"
#include "server/worker/row_runs.h"
#include "server/worker/workspace.h"

namespace annulus::worker {

// A rank's program with every token turned into a pointer: what the executor does, op by op, as
// arguments for the two C tables.

struct MemoryRange {
  void* data = nullptr;
  size_t bytes = 0;
};

struct Conversion {  // `finish`: to = from rounded to its type
  annulusTensor from, to;
};

struct Addition {  // `accumulate`: to[i] += from[i]
  float* to = nullptr;
  const void* from = nullptr;
  int64_t count = 0;
};

struct BoundTransfer {
  std::vector<annulusSegment> segments;  // empty: no byte to move, nothing is posted
  uint64_t bytes = 0;
  std::vector<Conversion> before_send;
  MemoryRange zero_on_arrival;
  std::vector<Addition> on_arrival;
};

struct BoundCompute {
  MemoryRange zero_first;
  std::vector<annulusAttendArgs> attend;            // forward
  std::vector<annulusAttendBackwardArgs> backward;  // backward
};

struct BoundProgram {
  const RankProgram* program = nullptr;
  annulusDtype gradient_wire = ANNULUS_F32;
  std::vector<BoundTransfer> transfers;  // by id, as in the program
  std::vector<BoundCompute> computes;    // by id

  // Before anything is posted: own KV into packed form. Copies rows on the host.
  struct Pack {
    PlacedTensor from, to;
    std::vector<RowRun> runs;
  };
  std::vector<Pack> packs;

  // Before the first compute.
  std::vector<std::pair<annulusTensor, annulusRowStat>> reset;  // forward: o = 0, lse = -inf
  std::vector<MemoryRange> zero;                                // backward: dq = 0
  struct Delta {                                                // backward: delta = rowsum(do * o)
    annulusTensor d_o, o;
    annulusRowStat delta;
  };
  std::vector<Delta> delta;

  // After the last step.
  MemoryRange zero_home;           // backward: nothing was added to the rank's gradients
  std::vector<Conversion> finish;  // accumulators to outputs

  std::list<RunGroup> groups;  // own the spans that the arguments point at
};

// INVALID_ARGUMENT when a tensor lacks a token that the plan gives this rank. `inputs` and `space`
// outlive the result.
absl::StatusOr<BoundProgram> Bind(const AttendInputs& inputs, const Workspace& space);

}  // namespace annulus::worker
