// SPDX-License-Identifier: Apache-2.0
#include "server/ring/plan_json.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/ring/names.h"

namespace annulus::ring {
namespace {

std::string Quoted(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void AppendRanges(absl::string_view key, const TokenRanges& ranges, std::string* out) {
  absl::StrAppend(out, ",\"", key, "\":[");
  const char* separator = "";
  for (const TokenRange& range : ranges) {
    absl::StrAppend(out, separator, "[", range.begin, ",", range.end);
    if (range.stride != 1) absl::StrAppend(out, ",", range.stride);
    absl::StrAppend(out, "]");
    separator = ",";
  }
  out->push_back(']');
}

void AppendRank(const RankShard& shard, std::string* out) {
  absl::StrAppend(out, "{\"rank\":", shard.rank);
  AppendRanges("q", shard.q, out);
  AppendRanges("kv", shard.kv, out);
  out->push_back('}');
}

void AppendResident(const Resident& resident, std::string* out) {
  absl::StrAppend(out, "{\"rank\":", resident.rank, ",\"slot\":", Quoted(resident.slot));
  AppendRanges("kv", resident.kv, out);
  out->push_back('}');
}

void AppendCompute(const Compute& compute, bool backward, std::string* out) {
  absl::StrAppend(out, "{\"step\":", compute.step, ",\"rank\":", compute.rank,
                  ",\"slot\":", Quoted(compute.slot));
  AppendRanges("q", compute.q, out);
  AppendRanges("kv", compute.kv, out);
  absl::StrAppend(out, ",\"case\":\"", Name(compute.mask_case), "\"");
  if (backward) absl::StrAppend(out, ",\"into\":", Quoted(compute.into));
  out->push_back('}');
}

void AppendTransfer(const Transfer& transfer, std::string* out) {
  absl::StrAppend(out, "{\"payload\":\"", Name(transfer.payload), "\",\"src\":", transfer.src,
                  ",\"src_slot\":", Quoted(transfer.src_slot));
  absl::StrAppend(out, ",\"dst\":", transfer.dst, ",\"dst_slot\":", Quoted(transfer.dst_slot),
                  ",\"combine\":\"", Name(transfer.combine), "\"");
  absl::StrAppend(out, ",\"post_step\":", transfer.post_step, ",\"due_step\":", transfer.due_step);
  AppendRanges("tokens", transfer.tokens, out);
  absl::StrAppend(out, ",\"level\":\"", Name(transfer.level), "\"}");
}

template <typename Items, typename Append>
void AppendList(absl::string_view key, const Items& items, const Append& append, std::string* out) {
  absl::StrAppend(out, ",\"", key, "\":[");
  bool first = true;
  for (const auto& item : items) {
    if (!first) out->push_back(',');
    first = false;
    append(item);
  }
  out->push_back(']');
}

std::string Write(const Plan& plan, bool with_digest) {
  const bool backward = plan.direction == Direction::kBackward;
  std::string out = absl::StrCat("{\"schema\":\"", kPlanSchema, "\"");
  if (with_digest) absl::StrAppend(&out, ",\"digest\":", Quoted(plan.digest));
  absl::StrAppend(&out, ",\"algorithm\":\"", Name(plan.algorithm), "\",\"direction\":\"",
                  Name(plan.direction), "\"");
  absl::StrAppend(&out, ",\"context_parallel_size\":", plan.context_parallel_size,
                  ",\"window_size\":", plan.window_size, ",\"steps\":", plan.steps);
  absl::StrAppend(&out, ",\"query_length\":", plan.query_length, ",\"kv_length\":", plan.kv_length);
  absl::StrAppend(&out, ",\"mask\":{\"kind\":\"", Name(plan.mask.kind),
                  "\",\"window_left\":", plan.mask.window_left, "},\"layout\":\"",
                  Name(plan.layout), "\"");
  AppendList(
      "ranks", plan.ranks, [&](const RankShard& s) { AppendRank(s, &out); }, &out);
  AppendList(
      "resident", plan.resident, [&](const Resident& r) { AppendResident(r, &out); }, &out);
  AppendList(
      "computes", plan.computes, [&](const Compute& c) { AppendCompute(c, backward, &out); }, &out);
  AppendList(
      "transfers", plan.transfers, [&](const Transfer& t) { AppendTransfer(t, &out); }, &out);
  if (backward) absl::StrAppend(&out, ",\"gradient_home\":", Quoted(plan.gradient_home));
  out.push_back('}');
  return out;
}

}  // namespace

std::string CanonicalPlanJson(const Plan& plan) { return Write(plan, false); }

std::string PlanToJson(const Plan& plan) { return Write(plan, true); }

}  // namespace annulus::ring
