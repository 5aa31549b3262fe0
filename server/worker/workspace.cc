// SPDX-License-Identifier: Apache-2.0
#include "server/worker/workspace.h"

#include <cstring>
#include <limits>

#include "server/base/status_macros.h"

namespace annulus::worker {
namespace {

constexpr uint64_t kAlignBytes = 64;
constexpr uint64_t kTooLarge = std::numeric_limits<uint64_t>::max() / 4;

// Lays pieces one after the other, each aligned; remembers where each pointer has to go.
class Arena {
 public:
  void Add(uint64_t bytes, uint8_t** pointer) {
    if (bytes > kTooLarge || total_ > kTooLarge) {
      total_ = std::numeric_limits<uint64_t>::max();
      return;
    }
    pieces_.push_back({pointer, total_});
    total_ += (bytes + kAlignBytes - 1) / kAlignBytes * kAlignBytes;
  }
  uint64_t total() const { return total_; }
  void Place(uint8_t* base) const {
    for (const Piece& piece : pieces_) *piece.pointer = base + piece.offset;
  }

 private:
  struct Piece {
    uint8_t** pointer;
    uint64_t offset;
  };
  std::vector<Piece> pieces_;
  uint64_t total_ = 0;
};

uint64_t PairBytes(const AttendInputs& inputs, int64_t tokens, annulusDtype dtype) {
  const uint64_t one = DenseBytes(inputs.batch, tokens, inputs.kv_heads, inputs.head_dim, dtype);
  return one > kTooLarge ? one : 2 * one;
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

}  // namespace

bool NeedsPacking(const AttendInputs& inputs) {
  if (!SendsOwn(*inputs.program)) return false;
  std::vector<annulusSegment> segments;
  return !FewSegments(inputs.k, inputs.program->shard->kv, &segments) ||
         !FewSegments(inputs.v, inputs.program->shard->kv, &segments);
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
  AddSlots(inputs, &space, &arena);
  const int64_t queries = ring::TokenCount(program.shard->q);
  if (NeedsPacking(inputs)) {
    arena.Add(PairBytes(inputs, ring::TokenCount(program.shard->kv), inputs.dtype),
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
  if (inputs.transfers_off) {
    if (space.arena.bytes() > 0) std::memset(space.arena.data(), 0, space.arena.bytes());
    if (space.resident.bytes() > 0) std::memset(space.resident.data(), 0, space.resident.bytes());
  }
  return space;
}

}  // namespace annulus::worker
