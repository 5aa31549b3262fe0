// SPDX-License-Identifier: Apache-2.0
#include "tests/property/ring/mutations.h"

#include <functional>
#include <set>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using ring::Compute;
using ring::Plan;
using ring::TokenRanges;
using ring::Transfer;

int AnyRank(Random& random, const Plan& plan) {
  return Draw(random, 0, plan.context_parallel_size - 1);
}

std::string AnySlot(Random& random, const Plan& plan) {
  std::set<std::string> names = {"own", "fresh"};
  for (const Compute& compute : plan.computes) names.insert(compute.slot);
  for (const Transfer& transfer : plan.transfers) names.insert(transfer.dst_slot);
  return Pick(random, std::vector<std::string>(names.begin(), names.end()));
}

void OtherTokens(Random& random, const Plan& plan, TokenRanges* tokens) {
  if (Draw(random, 0, 1) == 0 && !tokens->empty()) {
    tokens->erase(tokens->begin() + Draw(random, 0, static_cast<int>(tokens->size()) - 1));
  } else {
    *tokens = plan.ranks[static_cast<size_t>(AnyRank(random, plan))].kv;
  }
}

std::string& SlotOf(Transfer& transfer) { return transfer.dst_slot; }
std::string& SlotOf(Compute& compute) { return compute.slot; }

template <typename Op>
struct Fault {
  const char* name;
  std::function<void(Random&, const Plan&, Op&)> apply;
};

const std::vector<Fault<Transfer>>& TransferFaults() {
  static const std::vector<Fault<Transfer>> faults = {
      {"posted earlier", [](Random&, const Plan&, Transfer& t) { --t.post_step; }},
      {"posted later", [](Random&, const Plan&, Transfer& t) { ++t.post_step; }},
      {"due earlier", [](Random&, const Plan&, Transfer& t) { --t.due_step; }},
      {"due later", [](Random&, const Plan&, Transfer& t) { ++t.due_step; }},
      {"shifted", [](Random&, const Plan&, Transfer& t) { ++t.post_step, ++t.due_step; }},
      {"to another rank", [](Random& r, const Plan& p, Transfer& t) { t.dst = AnyRank(r, p); }},
      {"from another rank", [](Random& r, const Plan& p, Transfer& t) { t.src = AnyRank(r, p); }},
      {"into another slot",
       [](Random& r, const Plan& p, Transfer& t) { t.dst_slot = AnySlot(r, p); }},
      {"from another slot",
       [](Random& r, const Plan& p, Transfer& t) { t.src_slot = AnySlot(r, p); }},
      {"of other tokens",
       [](Random& r, const Plan& p, Transfer& t) { OtherTokens(r, p, &t.tokens); }},
      {"combined otherwise",
       [](Random&, const Plan&, Transfer& t) {
         t.combine =
             t.combine == ring::Combine::kAdd ? ring::Combine::kReplace : ring::Combine::kAdd;
       }},
  };
  return faults;
}

const std::vector<Fault<Compute>>& ComputeFaults() {
  static const std::vector<Fault<Compute>> faults = {
      {"earlier", [](Random&, const Plan&, Compute& c) { --c.step; }},
      {"later", [](Random&, const Plan&, Compute& c) { ++c.step; }},
      {"on another rank", [](Random& r, const Plan& p, Compute& c) { c.rank = AnyRank(r, p); }},
      {"from another slot", [](Random& r, const Plan& p, Compute& c) { c.slot = AnySlot(r, p); }},
      {"into another slot",
       [](Random& r, const Plan& p, Compute& c) {
         if (!c.into.empty()) c.into = AnySlot(r, p);
       }},
      {"over other keys", [](Random& r, const Plan& p, Compute& c) { OtherTokens(r, p, &c.kv); }},
      {"of other queries", [](Random& r, const Plan& p,
                              Compute& c) { c.q = p.ranks[static_cast<size_t>(AnyRank(r, p))].q; }},
      {"of another case",
       [](Random&, const Plan&, Compute& c) {
         c.mask_case = c.mask_case == ring::MaskCase::kFull ? ring::MaskCase::kPartial
                                                            : ring::MaskCase::kFull;
       }},
  };
  return faults;
}

template <typename Op>
std::string MutateOps(Random& random, const std::vector<Fault<Op>>& faults, const Plan& plan,
                      std::vector<Op>* ops) {
  const auto at = ops->begin() + Draw(random, 0, static_cast<int>(ops->size()) - 1);
  const int draw = Draw(random, 0, static_cast<int>(faults.size()) + 2);
  if (draw == 0) {
    ops->erase(at);
    return "dropped";
  }
  if (draw == 1) {
    const Op copy = *at;
    ops->push_back(copy);
    return "duplicated";
  }
  if (draw == 2) {
    const auto other = ops->begin() + Draw(random, 0, static_cast<int>(ops->size()) - 1);
    std::swap(SlotOf(*at), SlotOf(*other));
    return "slots swapped";
  }
  const Fault<Op>& fault = faults[static_cast<size_t>(draw - 3)];
  fault.apply(random, plan, *at);
  return fault.name;
}

std::optional<std::string> MutateFrame(Random& random, Plan* plan) {
  if (!plan->resident.empty() && Draw(random, 0, 1) == 0) {
    const int at = Draw(random, 0, static_cast<int>(plan->resident.size()) - 1);
    if (Draw(random, 0, 1) == 0) {
      plan->resident.erase(plan->resident.begin() + at);
      return "resident dropped";
    }
    plan->resident[static_cast<size_t>(at)].slot = AnySlot(random, *plan);
    return "resident in another slot";
  }
  if (plan->direction == ring::Direction::kBackward) {
    plan->gradient_home = AnySlot(random, *plan);
    return "another gradient_home";
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> Mutate(Random& random, Plan* plan) {
  const Plan before = *plan;
  std::optional<std::string> fault;
  const int draw = Draw(random, 0, 9);
  if (draw == 0) {
    fault = MutateFrame(random, plan);
  } else if (draw <= 5 && !plan->transfers.empty()) {
    fault = "transfer " + MutateOps(random, TransferFaults(), before, &plan->transfers);
  } else if (!plan->computes.empty()) {
    fault = "compute " + MutateOps(random, ComputeFaults(), before, &plan->computes);
  }
  return *plan == before ? std::nullopt : fault;
}

}  // namespace annulus::testing
