// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "server/transport/transport_plugin.h"
#include "server/worker/placement.h"
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
  // Only where the transport moves host memory and the device has its own: what is sent, out of the
  // device's memory after before_send, and what has arrived, into it.
  std::vector<annulusCopyArgs> to_wire;
  std::vector<annulusCopyArgs> from_wire;
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

  // Before anything is posted, so that what is sent lies where the transport reads it: own K and V
  // onto the device, own KV into packed form, KV out of the device's memory.
  std::vector<annulusCopyArgs> first_uploads;
  std::vector<annulusCopyArgs> packs;
  std::vector<annulusCopyArgs> first_to_wire;

  // Before the first compute.
  std::vector<annulusCopyArgs> uploads;                         // the caller's other inputs
  std::vector<std::pair<annulusTensor, annulusRowStat>> reset;  // forward: o = 0, lse = -inf
  std::vector<MemoryRange> zero;                                // backward: dq = 0
  struct Delta {                                                // backward: delta = rowsum(do * o)
    annulusTensor d_o, o;
    annulusRowStat delta;
  };
  std::vector<Delta> delta;

  // After the last step.
  MemoryRange zero_home;                   // backward: nothing was added to the rank's gradients
  std::vector<Conversion> finish;          // accumulators to outputs
  std::vector<annulusCopyArgs> downloads;  // outputs into the caller's memory

  std::list<RunGroup> groups;  // own the spans that the arguments point at
};

// Where the device works on the host's memory there is nothing to upload, to download or to take to
// or from the wire. INVALID_ARGUMENT when a tensor lacks a token that the plan gives this rank.
// `inputs` and `space` outlive the result.
absl::StatusOr<BoundProgram> Bind(const AttendInputs& inputs, const Placement& placement,
                                  const Workspace& space);

}  // namespace annulus::worker
