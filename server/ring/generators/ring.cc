// SPDX-License-Identifier: Apache-2.0
#include "server/ring/generators/ring.h"

#include <string>

#include "server/ring/generators/plan_builder.h"

namespace annulus::ring {
namespace {

// What the backward wants of owner's block at the rank that held it last in the forward.
Pieces BackwardNeeds(const PlanBuilder& plan, int ranks, int owner) {
  Pieces needed = 0;
  for (int distance = 1; distance < ranks; ++distance) {
    needed |= plan.Needs((owner + distance) % ranks, owner);
  }
  return needed;
}

// The path of one block, walked from its end so that `later` is what the ranks further on need.
void ForwardPath(const Spec& spec, int owner, PlanBuilder* plan) {
  const int n = spec.context_parallel_size;
  const auto held = [&](int step) { return step == 0 ? kOwnSlot : Buffer("inner", step - 1); };
  Pieces later = 0;
  if (spec.keep_resident && n > 1) {
    later = BackwardNeeds(*plan, n, owner);
    plan->KeepResident(owner, later, {(owner + n - 1) % n, held(n - 1)});
  }
  for (int step = n - 1; step >= 0; --step) {
    const int rank = (owner + step) % n;
    if (step < n - 1) {
      plan->MoveKv(owner, later, {rank, held(step)}, {(rank + 1) % n, held(step + 1)}, step,
                   step + 1, Level::kInner);
    }
    plan->Attend(step, rank, owner, held(step));
    later |= plan->Needs(rank, owner);
  }
}

void BackwardPath(const Spec& spec, int owner, PlanBuilder* plan) {
  const int n = spec.context_parallel_size;
  const int first = spec.keep_resident || n == 1 ? 0 : 1;
  // `distance` is how far the block is from its owner: n - 1 in the first step, 0 in the last.
  const auto step_of = [&](int distance) { return first + n - 1 - distance; };
  const auto rank_of = [&](int distance) { return (owner + distance) % n; };
  const auto held = [&](int distance) -> std::string {
    if (distance == 0) return kOwnSlot;
    return distance == n - 1 ? kResidentSlot : Buffer("inner", step_of(distance) - 1);
  };
  const auto into = [&](int distance) -> std::string {
    return distance == 0 ? kGradientHome : Buffer("g", step_of(distance));
  };

  Pieces later = 0;
  for (int distance = 1; distance < n; ++distance) {
    later |= plan->Needs(rank_of(distance), owner);
    const Place here{rank_of(distance), held(distance)};
    if (distance < n - 1) {
      plan->MoveKv(owner, later, {rank_of(distance + 1), held(distance + 1)}, here,
                   step_of(distance + 1), step_of(distance), Level::kInner);
    } else if (spec.keep_resident) {
      plan->KeepResident(owner, later, here);
    } else {
      plan->MoveKv(owner, later, {owner, kOwnSlot}, here, 0, first, Level::kInner);
    }
  }

  Pieces sum = 0;
  for (int distance = n - 1; distance >= 0; --distance) {
    const int step = step_of(distance);
    plan->Attend(step, rank_of(distance), owner, held(distance), into(distance));
    sum |= plan->Needs(rank_of(distance), owner);
    if (distance > 0) {
      plan->AddGradient(owner, sum, {rank_of(distance), into(distance)},
                        {rank_of(distance - 1), into(distance - 1)}, step + 1, step + 2,
                        Level::kInner);
    }
  }
}

int NamedWindow(const Spec& spec) {
  return spec.window_size == 0 ? spec.context_parallel_size : spec.window_size;
}

}  // namespace

Plan RingForward(const Spec& spec) {
  const int n = spec.context_parallel_size;
  PlanBuilder plan(spec, Algorithm::kRing, NamedWindow(spec), n);
  for (int owner = 0; owner < n; ++owner) ForwardPath(spec, owner, &plan);
  return std::move(plan).Finish();
}

Plan RingBackward(const Spec& spec) {
  const int n = spec.context_parallel_size;
  PlanBuilder plan(spec, Algorithm::kRing, NamedWindow(spec),
                   spec.keep_resident || n == 1 ? n : n + 1);
  plan.SetGradientHome(kGradientHome);
  for (int owner = 0; owner < n; ++owner) BackwardPath(spec, owner, &plan);
  return std::move(plan).Finish();
}

}  // namespace annulus::ring
