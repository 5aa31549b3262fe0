// SPDX-License-Identifier: Apache-2.0
#include "server/worker/placement.h"

#include "server/base/status_macros.h"
#include "server/worker/arena.h"

namespace annulus::worker {
namespace {

struct Operand {
  PlacedTensor* tensor;
  const ring::TokenRanges* rows;  // the rank's
  bool input;
  bool sent = false;
};

std::vector<Operand> OperandsOf(AttendInputs* inputs) {
  const ring::RankShard& shard = *inputs->program->shard;
  const bool backward = inputs->program->backward;
  const bool sent = inputs->wire == Memory::kDevice;
  std::vector<Operand> operands = {{&inputs->q, &shard.q, true},
                                   {&inputs->k, &shard.kv, true, sent},
                                   {&inputs->v, &shard.kv, true, sent},
                                   {&inputs->o, &shard.q, backward},
                                   {&inputs->lse, &shard.q, backward}};
  if (!backward) return operands;
  operands.push_back({&inputs->d_o, &shard.q, true});
  operands.push_back({&inputs->dq, &shard.q, false});
  operands.push_back({&inputs->dk, &shard.kv, false});
  operands.push_back({&inputs->dv, &shard.kv, false});
  return operands;
}

}  // namespace

absl::StatusOr<Placement> Placement::Create(AttendInputs* inputs, MemoryPool* pool) {
  Placement placement;
  inputs->sent_k = inputs->k;
  inputs->sent_v = inputs->v;
  Arena arena;
  std::vector<uint8_t*> places;
  std::vector<Operand> operands;
  for (const Operand& operand : OperandsOf(inputs)) {
    if (operand.tensor->memory == Memory::kHost) operands.push_back(operand);
  }
  if (operands.empty()) return placement;
  places.resize(operands.size());
  for (size_t i = 0; i < operands.size(); ++i) {
    const PlacedTensor& host = *operands[i].tensor;
    arena.Add(DenseBytes(host.batch, ring::TokenCount(*operands[i].rows), host.heads, host.head_dim,
                         host.dtype),
              &places[i]);
  }
  ANNULUS_ASSIGN_OR_RETURN(placement.memory,
                           pool->Take(arena.total(), "the tensors of a request on the device"));
  arena.Place(placement.memory.data());
  for (size_t i = 0; i < operands.size(); ++i) {
    const Operand& operand = operands[i];
    const PlacedTensor host = *operand.tensor;
    *operand.tensor =
        PlaceDense(places[i], host.dtype, host.batch, host.heads, host.head_dim, operand.rows);
    placement.moved.push_back({host, *operand.tensor, operand.input, operand.sent});
  }
  if (inputs->wire == Memory::kDevice) {
    inputs->sent_k = inputs->k;
    inputs->sent_v = inputs->v;
  }
  return placement;
}

}  // namespace annulus::worker
