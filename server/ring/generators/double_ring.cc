// SPDX-License-Identifier: Apache-2.0
#include "server/ring/generators/double_ring.h"

#include <string>

#include "server/ring/generators/plan_builder.h"

namespace annulus::ring {
namespace {

// One owner's block on its way: `round` windows and `inner` ranks from home.
struct Block {
  int windows;  // n
  int width;    // w
  int window;   // V of the owner
  int index;    // k of the owner
  int owner() const { return window * width + index; }
  int RankAt(int round, int inner) const {
    return (window + round) % windows * width + (index + inner) % width;
  }
  // What the ranks that see the block in `round` need of it; in round 0 of a backward the owner
  // itself reads its own slot.
  Pieces NeedsOfRound(const PlanBuilder& plan, int round) const {
    Pieces needed = 0;
    for (int t = 0; t < width; ++t) needed |= plan.Needs(RankAt(round, t), owner());
    return needed;
  }
};

void ForwardPath(const Spec& spec, const Block& block, PlanBuilder* plan) {
  const int n = block.windows, w = block.width, owner = block.owner();
  const auto held = [&](int j, int t) -> std::string {
    if (t > 0) return Buffer("inner", j * w + t - 1);
    return j > 0 ? Buffer("outer", j - 1) : kOwnSlot;
  };
  Pieces kept = 0;
  if (spec.keep_resident) {
    for (int j = 1; j < n; ++j) kept |= block.NeedsOfRound(*plan, j);
    plan->KeepResident(owner, kept, {block.RankAt(n - 1, w - 1), held(n - 1, w - 1)});
  }
  // Walked from its end, so that `later` is what the rounds, or ranks, further on need.
  Pieces later_rounds = kept;
  for (int j = n - 1; j >= 0; --j) {
    Pieces later = j == n - 1 ? kept : 0;
    for (int t = w - 1; t >= 0; --t) {
      const int step = j * w + t, rank = block.RankAt(j, t);
      if (t < w - 1) {
        plan->MoveKv(owner, later, {rank, held(j, t)}, {block.RankAt(j, t + 1), held(j, t + 1)},
                     step, step + 1, Level::kInner);
      }
      plan->Attend(step, rank, owner, held(j, t));
      later |= plan->Needs(rank, owner);
    }
    if (j < n - 1) {
      plan->MoveKv(owner, later_rounds, {block.RankAt(j, 0), held(j, 0)},
                   {block.RankAt(j + 1, 0), held(j + 1, 0)}, j * w, (j + 1) * w, Level::kOuter);
    }
    later_rounds |= later;
  }
}

// The places and times of one block's backward.
struct Backward {
  Block block;
  int first;  // step of round n - 1, t = w - 1

  int StepAt(int j, int t) const {
    return first + (block.windows - 1 - j) * block.width + block.width - 1 - t;
  }
  Place KvAt(int j, int t) const {
    const int rank = block.RankAt(j, t);
    if (j == 0 && t == 0) return {rank, kOwnSlot};
    if (t < block.width - 1 || j == 0) return {rank, Buffer("inner", StepAt(j, t) - 1)};
    return {rank, j == block.windows - 1 ? kResidentSlot : Buffer("outer", j + 1)};
  }
  Place GradientAt(int j, int t) const {
    const int rank = block.RankAt(j, t);
    if (t > 0) return {rank, Buffer("g", StepAt(j, t))};
    return {rank, j > 0 ? Buffer("sum", j) : kGradientHome};
  }
};

void BackwardKv(const Spec& spec, const Backward& path, PlanBuilder* plan) {
  const Block& block = path.block;
  const int n = block.windows, w = block.width, owner = block.owner();
  const Place home{owner, kOwnSlot};
  Pieces later_rounds = 0;
  for (int j = 0; j < n; ++j) {
    Pieces later = 0;
    for (int t = j == 0 ? 1 : 0; t < w; ++t) {
      later |= plan->Needs(block.RankAt(j, t), owner);
      if (t == w - 1) break;
      plan->MoveKv(owner, later, path.KvAt(j, t + 1), path.KvAt(j, t), path.StepAt(j, t + 1),
                   path.StepAt(j, t), Level::kInner);
    }
    // How the block comes to where the round begins.
    const Place start = path.KvAt(j, w - 1);
    const int step = path.StepAt(j, w - 1);
    if (j == 0) {
      plan->MoveKv(owner, later, home, start, step - 1, step, Level::kInner);
      continue;
    }
    later_rounds |= later;
    if (j < n - 1) {
      plan->MoveKv(owner, later_rounds, path.KvAt(j + 1, w - 1), start, step - w, step,
                   Level::kOuter);
    } else if (spec.keep_resident) {
      plan->KeepResident(owner, later_rounds, start);
    } else {
      plan->MoveKv(owner, later_rounds, home, start, 0, step, Level::kOuter);
    }
  }
}

void BackwardGradients(const Backward& path, PlanBuilder* plan) {
  const Block& block = path.block;
  const int n = block.windows, w = block.width, owner = block.owner();
  Pieces sum = 0;
  for (int j = n - 1; j >= 0; --j) {
    Pieces partial = 0;
    for (int t = w - 1; t >= 0; --t) {
      const int step = path.StepAt(j, t), rank = block.RankAt(j, t);
      const Place into = path.GradientAt(j, t);
      plan->Attend(step, rank, owner, path.KvAt(j, t).slot, into.slot);
      partial |= plan->Needs(rank, owner);
      if (t == 0) break;
      plan->AddGradient(owner, partial, into, path.GradientAt(j, t - 1), step + 1, step + 2,
                        Level::kInner);
    }
    sum |= partial;
    if (j == 0) break;
    const int next_round = path.StepAt(j - 1, w - 1);
    plan->AddGradient(owner, sum, path.GradientAt(j, 0), path.GradientAt(j - 1, 0), next_round,
                      next_round + w, Level::kOuter);
  }
}

template <typename Visit>
void ForEachBlock(const Spec& spec, const Visit& visit) {
  const int w = spec.window_size, n = spec.context_parallel_size / w;
  for (int window = 0; window < n; ++window) {
    for (int index = 0; index < w; ++index) visit(Block{n, w, window, index});
  }
}

}  // namespace

Plan DoubleRingForward(const Spec& spec) {
  PlanBuilder plan(spec, Algorithm::kDoubleRing, spec.window_size, spec.context_parallel_size);
  ForEachBlock(spec, [&](const Block& block) { ForwardPath(spec, block, &plan); });
  return std::move(plan).Finish();
}

Plan DoubleRingBackward(const Spec& spec) {
  const int first = spec.keep_resident ? 0 : 1;
  PlanBuilder plan(spec, Algorithm::kDoubleRing, spec.window_size,
                   first + spec.context_parallel_size);
  plan.SetGradientHome(kGradientHome);
  ForEachBlock(spec, [&](const Block& block) {
    const Backward path{block, first};
    BackwardKv(spec, path, &plan);
    BackwardGradients(path, &plan);
  });
  return std::move(plan).Finish();
}

}  // namespace annulus::ring
