// SPDX-License-Identifier: Apache-2.0
#include "server/worker/workspace.h"

#include <utility>

#include "server/base/status_macros.h"
#include "server/worker/arena.h"

namespace annulus::worker {
namespace {

uint64_t PairBytes(const AttendInputs& inputs, int64_t tokens, annulusDtype dtype) {
  const uint64_t one = DenseBytes(inputs.batch, tokens, inputs.kv_heads, inputs.head_dim, dtype);
  return one > Arena::kTooLarge ? one : 2 * one;
}

bool SendsOwn(const RankProgram& program) {
  for (const TransferOp& op : program.transfers) {
    if (op.send && op.slot == kOwnSlotId) return true;
  }
  return false;
}

bool FewSegments(const PlacedTensor& tensor, const ring::TokenRanges& tokens,
                 std::vector<annulusSegment>* segments) {
  const ring::TokenRanges* layouts[] = {tensor.tokens};
  const auto runs = LocateRuns(tokens, layouts);
  return runs.ok() && AppendSegments(tensor, *runs, 0, kSegmentsMax, segments);
}

void AddSlots(const AttendInputs& inputs, Workspace* space, Arena* arena) {
  const RankProgram& program = *inputs.program;
  const annulusDtype wire = inputs.gradient_wire_bf16 ? ANNULUS_BF16 : ANNULUS_F32;
  space->slots.resize(program.slots.size(), nullptr);
  space->receives.resize(program.receive_staging.size(), nullptr);
  space->sends.resize(program.send_staging.size(), nullptr);
  for (size_t i = 0; i < program.slots.size(); ++i) {
    const bool resident = static_cast<int>(i) == program.resident_slot;
    if (resident && (program.backward ? inputs.resident != nullptr : inputs.retain)) continue;
    const SlotUse& slot = program.slots[i];
    arena->Add(PairBytes(inputs, slot.capacity_tokens, slot.gradient ? ANNULUS_F32 : inputs.dtype),
               &space->slots[i]);
  }
  for (size_t i = 0; i < program.receive_staging.size(); ++i) {
    arena->Add(PairBytes(inputs, program.receive_staging[i], wire), &space->receives[i]);
  }
  if (!inputs.gradient_wire_bf16) return;
  for (size_t i = 0; i < program.send_staging.size(); ++i) {
    arena->Add(PairBytes(inputs, program.send_staging[i], wire), &space->sends[i]);
  }
}

// What the transport moves in the host's memory while the device has its own: the twin of every KV
// slot that comes or goes over it, and of the staging of gradients.
void AddHostWire(const AttendInputs& inputs, Workspace* space, Arena* arena) {
  const RankProgram& program = *inputs.program;
  const annulusDtype wire = inputs.gradient_wire_bf16 ? ANNULUS_BF16 : ANNULUS_F32;
  space->wire_slots.resize(program.slots.size(), nullptr);
  space->wire_receives.resize(program.receive_staging.size(), nullptr);
  space->wire_sends.resize(program.send_staging.size(), nullptr);
  std::vector<uint8_t> added(program.slots.size(), 0);
  for (const TransferOp& op : program.transfers) {
    if (op.slot == kOwnSlotId || op.transfer->payload != ring::Payload::kKv) continue;
    const size_t slot = static_cast<size_t>(op.slot);
    if (std::exchange(added[slot], 1) != 0) continue;
    arena->Add(PairBytes(inputs, program.slots[slot].capacity_tokens, inputs.dtype),
               &space->wire_slots[slot]);
  }
  for (size_t i = 0; i < program.receive_staging.size(); ++i) {
    arena->Add(PairBytes(inputs, program.receive_staging[i], wire), &space->wire_receives[i]);
  }
  for (size_t i = 0; i < program.send_staging.size(); ++i) {
    arena->Add(PairBytes(inputs, program.send_staging[i], wire), &space->wire_sends[i]);
  }
}

}  // namespace

bool NeedsPacking(const AttendInputs& inputs) {
  if (!SendsOwn(*inputs.program)) return false;
  if (inputs.sent_k.memory != inputs.wire || inputs.sent_v.memory != inputs.wire) return true;
  if (inputs.wire_registered && (inputs.sent_k.leased || inputs.sent_v.leased)) return true;
  std::vector<annulusSegment> segments;
  return !FewSegments(inputs.sent_k, inputs.program->shard->kv, &segments) ||
         !FewSegments(inputs.sent_v, inputs.program->shard->kv, &segments);
}

bool AccumulatesInPlace(const AttendInputs& inputs) {
  const PlacedTensor& output = inputs.program->backward ? inputs.dq : inputs.o;
  if (output.dtype != ANNULUS_F32) return false;
  if (!inputs.program->backward) return true;
  std::vector<annulusSegment> segments;
  return FewSegments(output, inputs.program->shard->q, &segments);
}

absl::StatusOr<Workspace> Workspace::Create(const AttendInputs& inputs, MemoryPool* pool) {
  const RankProgram& program = *inputs.program;
  Workspace space;
  Arena arena;
  Arena host_arena;
  AddSlots(inputs, &space, &arena);
  if (inputs.wire == Memory::kHost) AddHostWire(inputs, &space, &host_arena);
  const int64_t queries = ring::TokenCount(program.shard->q);
  if (NeedsPacking(inputs)) {
    Arena& wire_arena = inputs.wire == Memory::kHost ? host_arena : arena;
    wire_arena.Add(PairBytes(inputs, ring::TokenCount(program.shard->kv), inputs.dtype),
                   &space.packed_own);
  }
  if (!AccumulatesInPlace(inputs)) {
    arena.Add(DenseBytes(inputs.batch, queries, inputs.query_heads, inputs.head_dim, ANNULUS_F32),
              &space.accumulator);
  }
  if (program.backward) {
    arena.Add(DenseBytes(inputs.batch, queries, inputs.query_heads, 1, ANNULUS_F32), &space.delta);
  }
  ANNULUS_ASSIGN_OR_RETURN(space.arena, pool->Take(arena.total(), "an attention request"));
  arena.Place(space.arena.data());
  ANNULUS_ASSIGN_OR_RETURN(
      space.host_arena,
      pool->Take(host_arena.total(), "the transfers of an attention request", Memory::kHost));
  host_arena.Place(space.host_arena.data());
  if (!program.backward && inputs.retain && program.resident_slot >= 0) {
    const size_t slot = static_cast<size_t>(program.resident_slot);
    ANNULUS_ASSIGN_OR_RETURN(
        space.resident,
        pool->Take(PairBytes(inputs, program.slots[slot].capacity_tokens, inputs.dtype),
                   "the KV kept for a backward"));
    space.slots[slot] = space.resident.data();
  }
  if (program.backward && inputs.resident != nullptr && program.resident_slot >= 0) {
    space.slots[static_cast<size_t>(program.resident_slot)] = inputs.resident->buffer.data();
  }
  return space;
}

}  // namespace annulus::worker
