// SPDX-License-Identifier: Apache-2.0
#include "server/ring/generators/plan_builder.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/ring/mask.h"
#include "server/ring/partition.h"

namespace annulus::ring {
namespace {

size_t Index(int value) { return static_cast<size_t>(value); }

}  // namespace

PlanBuilder::PlanBuilder(const Spec& spec, Algorithm algorithm, int window_size, int steps) {
  plan_.algorithm = algorithm;
  plan_.direction = spec.direction;
  plan_.context_parallel_size = spec.context_parallel_size;
  plan_.window_size = window_size;
  plan_.steps = steps;
  plan_.query_length = spec.query_length;
  plan_.kv_length = spec.kv_length;
  plan_.mask = spec.mask;
  plan_.layout = spec.layout;
  const int ranks = spec.context_parallel_size;
  std::vector<TokenRanges> q = Partition(spec.layout, spec.query_length, ranks);
  std::vector<TokenRanges> kv = Partition(spec.layout, spec.kv_length, ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    plan_.ranks.push_back({rank, std::move(q[Index(rank)]), std::move(kv[Index(rank)])});
  }
}

Pieces PlanBuilder::Needs(int rank, int owner) const {
  const int64_t offset = CausalOffset(plan_.query_length, plan_.kv_length);
  const TokenRanges& kv = plan_.ranks[Index(owner)].kv;
  Pieces needed = 0;
  for (size_t piece = 0; piece < kv.size(); ++piece) {
    const MaskCase tile =
        CaseOf(plan_.mask, offset, plan_.ranks[Index(rank)].q, TokenRanges{kv[piece]});
    if (tile != MaskCase::kEmpty) needed |= Pieces{1} << piece;
  }
  return needed;
}

void PlanBuilder::Attend(int step, int rank, int owner, const std::string& slot,
                         const std::string& into) {
  const int64_t offset = CausalOffset(plan_.query_length, plan_.kv_length);
  std::vector<Compute> merged;
  for (const TokenRange& q : plan_.ranks[Index(rank)].q) {
    TokenRanges keys_by_case[2];
    for (const TokenRange& kv : plan_.ranks[Index(owner)].kv) {
      const MaskCase tile = CaseOf(plan_.mask, offset, q, kv);
      if (tile != MaskCase::kEmpty) keys_by_case[tile == MaskCase::kPartial].push_back(kv);
    }
    for (const MaskCase mask_case : {MaskCase::kFull, MaskCase::kPartial}) {
      const TokenRanges& keys = keys_by_case[mask_case == MaskCase::kPartial];
      if (keys.empty()) continue;
      const auto same = std::find_if(merged.begin(), merged.end(), [&](const Compute& compute) {
        return compute.mask_case == mask_case && compute.kv == keys;
      });
      if (same != merged.end()) {
        same->q.push_back(q);
      } else {
        merged.push_back({step, rank, slot, {q}, keys, mask_case, into});
      }
    }
  }
  std::move(merged.begin(), merged.end(), std::back_inserter(plan_.computes));
}

void PlanBuilder::MoveKv(int owner, Pieces pieces, const Place& from, const Place& to, int post,
                         int due, Level level) {
  Move({Payload::kKv,
        from.rank,
        from.slot,
        to.rank,
        to.slot,
        Combine::kReplace,
        post,
        due,
        {},
        level},
       owner, pieces);
}

void PlanBuilder::AddGradient(int owner, Pieces pieces, const Place& from, const Place& to,
                              int post, int due, Level level) {
  Move({Payload::kDkv, from.rank, from.slot, to.rank, to.slot, Combine::kAdd, post, due, {}, level},
       owner, pieces);
}

void PlanBuilder::Move(Transfer transfer, int owner, Pieces pieces) {
  if (pieces == 0) return;
  transfer.tokens = Tokens(owner, pieces);
  plan_.transfers.push_back(std::move(transfer));
}

void PlanBuilder::KeepResident(int owner, Pieces pieces, const Place& at) {
  if (pieces == 0) return;
  plan_.resident.push_back({at.rank, at.slot, Tokens(owner, pieces)});
}

void PlanBuilder::SetGradientHome(const std::string& slot) { plan_.gradient_home = slot; }

TokenRanges PlanBuilder::Tokens(int owner, Pieces pieces) const {
  const TokenRanges& kv = plan_.ranks[Index(owner)].kv;
  TokenRanges tokens;
  for (size_t piece = 0; piece < kv.size(); ++piece) {
    if ((pieces >> piece & 1) != 0) tokens.push_back(kv[piece]);
  }
  return tokens;
}

Plan PlanBuilder::Finish() && {
  std::stable_sort(plan_.resident.begin(), plan_.resident.end(),
                   [](const Resident& a, const Resident& b) { return a.rank < b.rank; });
  std::stable_sort(plan_.computes.begin(), plan_.computes.end(),
                   [](const Compute& a, const Compute& b) {
                     return std::tie(a.step, a.rank) < std::tie(b.step, b.rank);
                   });
  std::stable_sort(plan_.transfers.begin(), plan_.transfers.end(),
                   [](const Transfer& a, const Transfer& b) {
                     return std::tie(a.post_step, a.payload, a.level, a.src) <
                            std::tie(b.post_step, b.payload, b.level, b.src);
                   });
  return std::move(plan_);
}

std::string Buffer(const char* name, int step) { return absl::StrCat(name, step % 2); }

}  // namespace annulus::ring
