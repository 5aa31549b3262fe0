// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "server/ring/plan.h"

namespace annulus::ring {

// A subset of the ranges of one rank's KV: bit i stands for its i-th range.
using Pieces = uint32_t;

// A slot of a rank.
struct Place {
  int rank = 0;
  std::string slot;
};

// Slots of every plan: the KV that is a rank's own at the end, and where its gradients come home.
inline constexpr char kResidentSlot[] = "res";
inline constexpr char kGradientHome[] = "dkv_home";

// What the generators share: lays down the computes and transfers of a path, leaving out the tiles
// that the mask empties and the hops that carry nothing.
class PlanBuilder {
 public:
  // Fills in the header of the plan and who owns what. `steps` as the generator means to use them.
  PlanBuilder(const Spec& spec, Algorithm algorithm, int window_size, int steps);

  // The pieces of `owner`'s KV of which some query of `rank` sees some key.
  Pieces Needs(int rank, int owner) const;

  // `rank` attends owner's KV, which stands in `slot`: one compute per set of tiles that share a
  // mask case.
  void Attend(int step, int rank, int owner, const std::string& slot, const std::string& into = "");

  // Moves `pieces` of owner's KV, or of the gradients of it, posted at `post` and due at `due`.
  void MoveKv(int owner, Pieces pieces, const Place& from, const Place& to, int post, int due,
              Level level);
  void AddGradient(int owner, Pieces pieces, const Place& from, const Place& to, int post, int due,
                   Level level);

  void KeepResident(int owner, Pieces pieces, const Place& at);
  void SetGradientHome(const std::string& slot);

  // The plan in the order of steps, without its digest.
  Plan Finish() &&;

 private:
  TokenRanges Tokens(int owner, Pieces pieces) const;
  void Move(Transfer transfer, int owner, Pieces pieces);

  Plan plan_;
};

// Double buffers, told apart by the parity of the step in which they begin to be filled.
std::string Buffer(const char* name, int step);  // "inner", 5 -> "inner1"

}  // namespace annulus::ring
