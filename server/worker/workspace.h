// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/worker/memory_pool.h"
#include "server/worker/rank_program.h"
#include "server/worker/shard_view.h"

namespace annulus::worker {

// The tensors and settings of one Attend, found and checked.
struct AttendInputs {
  std::shared_ptr<const RankProgram> program;
  int64_t batch = 1;
  int query_heads = 1;
  int kv_heads = 1;
  int head_dim = 64;
  annulusDtype dtype = ANNULUS_F32;
  float softmax_scale = 0;
  bool gradient_wire_bf16 = false;
  bool retain = false;
  Memory wire = Memory::kDevice;  // where the transport reads and writes what it moves
  bool wire_registered = false;   // it takes what was registered with it, and nothing else
  // The last four only in a backward.
  PlacedTensor q, k, v, o, lse, d_o, dq, dk, dv;
  PlacedTensor sent_k, sent_v;           // own K and V where sends read them; see Placement
  std::shared_ptr<RetainedKv> resident;  // backward from a retained forward; else null
};

// The memory of one request on one rank: ring slots, staging, accumulators. Reserved and allocated
// before step 0; nothing is allocated while steps run.
//
// KV slots are [K | V], each [batch, tokens, kv_heads, head_dim] dense in the storage type, tokens
// being those the slot holds at the time; gradient slots are [dK | dV], the same in float32.
struct Workspace {
  // RESOURCE_EXHAUSTED beyond the ledger's limit, before anything is allocated.
  static absl::StatusOr<Workspace> Create(const AttendInputs& inputs, MemoryPool* pool);

  std::vector<uint8_t*> slots;     // by slot id
  std::vector<uint8_t*> receives;  // by staging id: gradients as they come from the wire
  std::vector<uint8_t*> sends;     // by staging id: gradients rounded for the wire; else null
  // Only with inputs.wire kHost: what the transport moves, in the host's memory. KV that arrives in
  // a slot's twin is copied to the slot, and sent on from the twin.
  std::vector<uint8_t*> wire_slots;     // by slot id; null for slots that do not travel
  std::vector<uint8_t*> wire_receives;  // by staging id
  std::vector<uint8_t*> wire_sends;     // by staging id
  uint8_t* packed_own = nullptr;        // own KV packed for sending; null when it is sent in place
  uint8_t* accumulator = nullptr;  // float32 o or dq over the rank's queries; null when the output
                                   // itself accumulates
  uint8_t* delta = nullptr;        // backward: rowsum(do * o), [batch, queries, query_heads]

  Buffer arena;
  Buffer host_arena;
  Buffer resident;  // forward with retain: the slot to be kept
};

// Whether own KV goes out packed: its rows, where they lie, make too many pieces to send, or lie
// where the transport cannot read them, or not in memory that was registered with it.
bool NeedsPacking(const AttendInputs& inputs);
// Whether `output` (o or dq) can accumulate in place: float32; for dq also contiguous per run, so
// that it can be zeroed.
bool AccumulatesInPlace(const AttendInputs& inputs);

// Pieces of memory that one transfer may name at most.
inline constexpr size_t kSegmentsMax = 256;

}  // namespace annulus::worker
