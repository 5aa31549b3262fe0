// SPDX-License-Identifier: Apache-2.0
#include "server/ring/checker/view.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::ring {
namespace {

// The token lists of the plan in one row, with the index at which each kind begins.
class ListCollector {
 public:
  template <typename Items, typename Get>
  void Add(const char* name, const Items& items, const Get& get) {
    kinds_.push_back({name, lists_.size()});
    for (const auto& item : items) lists_.push_back(&get(item));
  }

  absl::StatusOr<TokenSets> Refine(int64_t length) const {
    return TokenSets::Refine(length, lists_, [this](size_t list) {
      size_t kind = kinds_.size() - 1;
      while (kinds_[kind].second > list) --kind;
      return absl::StrCat(kinds_[kind].first, " of item ", list - kinds_[kind].second);
    });
  }

  // The sets of the lists of the kind-th Add.
  std::vector<int> SetsOf(const TokenSets& sets, size_t kind) const {
    const size_t end = kind + 1 < kinds_.size() ? kinds_[kind + 1].second : lists_.size();
    std::vector<int> of_kind;
    for (size_t list = kinds_[kind].second; list < end; ++list) of_kind.push_back(sets.SetOf(list));
    return of_kind;
  }

 private:
  std::vector<const TokenRanges*> lists_;
  std::vector<std::pair<const char*, size_t>> kinds_;
};

void CollectSlots(PlanView* view) {
  const Plan& plan = view->plan;
  for (size_t i = 0; i < plan.computes.size(); ++i) {
    const Compute& compute = plan.computes[i];
    view->slots[{compute.rank, compute.slot}].attends.push_back(i);
    if (plan.direction == Direction::kBackward) {
      view->slots[{compute.rank, compute.into}].accumulates.push_back(i);
    }
  }
  for (size_t i = 0; i < plan.transfers.size(); ++i) {
    const Transfer& transfer = plan.transfers[i];
    view->slots[{transfer.src, transfer.src_slot}].departures.push_back(i);
    view->slots[{transfer.dst, transfer.dst_slot}].arrivals.push_back(i);
  }
  for (size_t i = 0; i < plan.resident.size(); ++i) {
    view->slots[{plan.resident[i].rank, plan.resident[i].slot}].residents.push_back(i);
  }
}

}  // namespace

absl::StatusOr<PlanView> MakePlanView(const Plan& plan) {
  ListCollector queries;
  queries.Add(
      "ranks: q", plan.ranks, [](const RankShard& s) -> auto& { return s.q; });
  queries.Add(
      "computes: q", plan.computes, [](const Compute& c) -> auto& { return c.q; });
  ListCollector keys;
  keys.Add(
      "ranks: kv", plan.ranks, [](const RankShard& s) -> auto& { return s.kv; });
  keys.Add(
      "resident: kv", plan.resident, [](const Resident& r) -> auto& { return r.kv; });
  keys.Add(
      "computes: kv", plan.computes, [](const Compute& c) -> auto& { return c.kv; });
  keys.Add(
      "transfers: tokens", plan.transfers, [](const Transfer& t) -> auto& { return t.tokens; });

  ANNULUS_ASSIGN_OR_RETURN(TokenSets query_sets, queries.Refine(plan.query_length));
  ANNULUS_ASSIGN_OR_RETURN(TokenSets key_sets, keys.Refine(plan.kv_length));
  PlanView view{plan, std::move(query_sets), std::move(key_sets), {}, {}, {}, {}, {}, {}, {}};
  view.rank_q = queries.SetsOf(view.queries, 0);
  view.compute_q = queries.SetsOf(view.queries, 1);
  view.rank_kv = keys.SetsOf(view.keys, 0);
  view.resident_kv = keys.SetsOf(view.keys, 1);
  view.compute_kv = keys.SetsOf(view.keys, 2);
  view.transfer_tokens = keys.SetsOf(view.keys, 3);
  CollectSlots(&view);
  return view;
}

}  // namespace annulus::ring
