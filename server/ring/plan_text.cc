// SPDX-License-Identifier: Apache-2.0
#include "server/ring/plan_text.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/ring/names.h"
#include "server/ring/slots.h"
#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

constexpr int kMaxTableRanks = 16;

int OwnerOf(const Plan& plan, int64_t key) {
  for (const RankShard& shard : plan.ranks) {
    for (const TokenRange& range : shard.kv) {
      if (Contains(range, key)) return shard.rank;
    }
  }
  return -1;
}

void AppendSummary(const Plan& plan, std::string* out) {
  absl::StrAppend(out, Name(plan.algorithm), " ", Name(plan.direction), ", ",
                  plan.context_parallel_size, " ranks in windows of ", plan.window_size, ", ",
                  plan.steps, " steps\n");
  absl::StrAppend(out, plan.query_length, " queries over ", plan.kv_length, " keys, ",
                  Name(plan.mask.kind), " mask");
  if (plan.mask.window_left >= 0) absl::StrAppend(out, ", window_left ", plan.mask.window_left);
  absl::StrAppend(out, ", ", Name(plan.layout), " layout\ndigest ", plan.digest, "\n");
}

void AppendTraffic(const Plan& plan, std::string* out) {
  for (const Payload payload : {Payload::kKv, Payload::kDkv}) {
    if (payload == Payload::kDkv && plan.direction == Direction::kForward) continue;
    const Traffic traffic = TrafficOf(plan, payload);
    absl::StrAppendFormat(
        out, "%-3s hops of a rank: %d inner, %d outer; tokens moved: %d inner, %d outer\n",
        Name(payload), traffic.hops[0], traffic.hops[1], traffic.tokens[0], traffic.tokens[1]);
  }
}

void AppendSlots(const Plan& plan, std::string* out) {
  absl::StrAppend(out, "slots of rank 0 (tokens):");
  int staging = 0;
  int64_t staging_tokens = 0;
  const SlotTable table(plan, 0);
  for (const Slot& slot : table.slots()) {
    if (slot.name.empty()) {
      ++staging;
      staging_tokens += slot.max_tokens;
    } else {
      absl::StrAppend(out, " ", slot.name, " ", slot.max_tokens);
    }
  }
  if (staging > 0) absl::StrAppend(out, " staging ", staging, "x, ", staging_tokens, " in all");
  absl::StrAppend(out, "\n");
}

// Cells of step x rank: owners attended, in the order of the computes.
std::vector<std::vector<std::string>> Cells(const Plan& plan) {
  std::vector<std::vector<std::string>> cells(
      static_cast<size_t>(plan.steps),
      std::vector<std::string>(static_cast<size_t>(plan.context_parallel_size)));
  for (const Compute& compute : plan.computes) {
    std::string& cell = cells[static_cast<size_t>(compute.step)][static_cast<size_t>(compute.rank)];
    if (compute.kv.empty()) continue;
    const std::string owner = absl::StrCat(OwnerOf(plan, compute.kv.front().begin));
    const bool partial = compute.mask_case == MaskCase::kPartial;
    if (cell.empty()) cell = owner;
    if (partial && cell.back() != '~') cell.push_back('~');
  }
  return cells;
}

// One line per kind of transfer posted in the step: "kv inner own -> inner0, due 1: 0>1 1>2".
void AppendPosts(const Plan& plan, int step, std::string* out) {
  std::map<std::string, std::vector<std::string>> posts;
  for (const Transfer& transfer : plan.transfers) {
    if (transfer.post_step != step) continue;
    const std::string kind =
        absl::StrCat(Name(transfer.payload), " ", Name(transfer.level), " ", transfer.src_slot,
                     " -> ", transfer.dst_slot, ", due ", transfer.due_step);
    posts[kind].push_back(absl::StrCat(transfer.src, ">", transfer.dst));
  }
  for (const auto& [kind, pairs] : posts) {
    absl::StrAppend(out, "      ", kind, ": ", absl::StrJoin(pairs, " "), "\n");
  }
}

void AppendSteps(const Plan& plan, std::string* out) {
  absl::StrAppend(out, "\nstep  KV of which owner is attended by rank\n      ");
  for (int rank = 0; rank < plan.context_parallel_size; ++rank) {
    absl::StrAppendFormat(out, "%-4d", rank);
  }
  absl::StrAppend(out, "\n");
  const auto cells = Cells(plan);
  for (int step = 0; step < plan.steps; ++step) {
    absl::StrAppendFormat(out, "%4d  ", step);
    for (const std::string& cell : cells[static_cast<size_t>(step)]) {
      absl::StrAppendFormat(out, "%-4s", cell.empty() ? "." : cell);
    }
    absl::StrAppend(out, "\n");
    AppendPosts(plan, step, out);
  }
}

}  // namespace

Traffic TrafficOf(const Plan& plan, Payload payload) {
  Traffic traffic;
  std::map<std::pair<int, Level>, int> sent;
  for (const Transfer& transfer : plan.transfers) {
    if (transfer.payload != payload) continue;
    const auto level = static_cast<size_t>(transfer.level);
    traffic.hops[level] = std::max(traffic.hops[level], ++sent[{transfer.src, transfer.level}]);
    traffic.tokens[level] += TokenCount(transfer.tokens);
  }
  return traffic;
}

std::string PlanToText(const Plan& plan) {
  std::string out;
  AppendSummary(plan, &out);
  AppendTraffic(plan, &out);
  AppendSlots(plan, &out);
  if (plan.context_parallel_size > kMaxTableRanks) {
    absl::StrAppend(&out, "(the table of steps is shown for up to ", kMaxTableRanks, " ranks)\n");
    return out;
  }
  AppendSteps(plan, &out);
  return out;
}

}  // namespace annulus::ring
