// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/ring/digest.h"
#include "server/ring/json_document.h"
#include "server/ring/json_object.h"
#include "server/ring/plan_json.h"
#include "server/ring/plan_limits.h"
#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

using nlohmann::json;

absl::Status ReadRange(const json& item, const std::string& path, TokenRange* out) {
  if (!item.is_array() || item.size() < 2 || item.size() > 3) {
    return Wrong(path, "[begin, end] or [begin, end, stride]", Shown(item));
  }
  out->begin = IntegerIn(item[0], 0, kMaxTokens);
  out->end = IntegerIn(item[1], 0, kMaxTokens);
  out->stride = item.size() == 3 ? IntegerIn(item[2], 2, kMaxTokens) : 1;
  if (out->begin == kNoInteger || out->end == kNoInteger || out->stride == kNoInteger ||
      out->begin >= out->end) {
    return Wrong(path, "0 <= begin < end <= 2^40 and, if given, stride >= 2",
                 item.dump().substr(0, 64));
  }
  return absl::OkStatus();
}

void ReadRanges(ObjectReader& reader, const char* field, TokenRanges* out) {
  reader.ReadList(field, kMaxRangesPerList, [&](const json& item, const std::string& path) {
    TokenRange range;
    ANNULUS_RETURN_IF_ERROR(ReadRange(item, path, &range));
    out->push_back(range);
    return absl::OkStatus();
  });
}

absl::Status ReadRank(const json& item, const std::string& path, Plan* plan) {
  RankShard shard;
  ObjectReader reader(item, path);
  reader.ReadInteger("rank", 0, kMaxRanks - 1, &shard.rank);
  ReadRanges(reader, "q", &shard.q);
  ReadRanges(reader, "kv", &shard.kv);
  plan->ranks.push_back(std::move(shard));
  return reader.Finish();
}

absl::Status ReadResident(const json& item, const std::string& path, Plan* plan) {
  Resident resident;
  ObjectReader reader(item, path);
  reader.ReadInteger("rank", 0, kMaxRanks - 1, &resident.rank);
  reader.ReadString("slot", kMaxSlotName, &resident.slot);
  ReadRanges(reader, "kv", &resident.kv);
  plan->resident.push_back(std::move(resident));
  return reader.Finish();
}

absl::Status ReadCompute(const json& item, const std::string& path, Plan* plan) {
  Compute compute;
  ObjectReader reader(item, path);
  reader.ReadInteger("step", 0, kMaxSteps - 1, &compute.step);
  reader.ReadInteger("rank", 0, kMaxRanks - 1, &compute.rank);
  reader.ReadString("slot", kMaxSlotName, &compute.slot);
  ReadRanges(reader, "q", &compute.q);
  ReadRanges(reader, "kv", &compute.kv);
  reader.ReadEnum("case", &compute.mask_case);
  if (plan->direction == Direction::kBackward) {
    reader.ReadString("into", kMaxSlotName, &compute.into);
  }
  plan->computes.push_back(std::move(compute));
  return reader.Finish();
}

absl::Status ReadTransfer(const json& item, const std::string& path, Plan* plan) {
  Transfer transfer;
  ObjectReader reader(item, path);
  reader.ReadEnum("payload", &transfer.payload);
  reader.ReadInteger("src", 0, kMaxRanks - 1, &transfer.src);
  reader.ReadString("src_slot", kMaxSlotName, &transfer.src_slot);
  reader.ReadInteger("dst", 0, kMaxRanks - 1, &transfer.dst);
  reader.ReadString("dst_slot", kMaxSlotName, &transfer.dst_slot);
  reader.ReadEnum("combine", &transfer.combine);
  reader.ReadInteger("post_step", 0, kMaxSteps, &transfer.post_step);
  reader.ReadInteger("due_step", 0, kMaxSteps, &transfer.due_step);
  ReadRanges(reader, "tokens", &transfer.tokens);
  reader.ReadEnum("level", &transfer.level);
  plan->transfers.push_back(std::move(transfer));
  return reader.Finish();
}

void ReadHeader(ObjectReader& reader, Plan* plan) {
  reader.ReadEnum("algorithm", &plan->algorithm);
  reader.ReadEnum("direction", &plan->direction);
  reader.ReadInteger("context_parallel_size", 1, kMaxRanks, &plan->context_parallel_size);
  reader.ReadInteger("window_size", 1, kMaxRanks, &plan->window_size);
  reader.ReadInteger("steps", 1, kMaxSteps, &plan->steps);
  reader.ReadInteger("query_length", 1, kMaxTokens, &plan->query_length);
  reader.ReadInteger("kv_length", 1, kMaxTokens, &plan->kv_length);
  reader.ReadObject("mask", [&](ObjectReader& mask) {
    mask.ReadEnum("kind", &plan->mask.kind);
    mask.ReadInteger("window_left", -1, kMaxTokens, &plan->mask.window_left);
  });
  reader.ReadEnum("layout", &plan->layout);
}

absl::Status ReadPlan(const json& document, const PlanJsonOptions& options, Plan* plan) {
  ObjectReader reader(document, "", "plan");
  std::string schema;
  reader.ReadString("schema", 64, &schema);
  if (reader.Has("schema") && schema != kPlanSchema) {
    return Wrong("schema", absl::StrCat("\"", kPlanSchema, "\""), absl::StrCat("\"", schema, "\""));
  }
  if (options.verify_digest || reader.Has("digest")) {
    reader.ReadString("digest", 64, &plan->digest);
  }
  ReadHeader(reader, plan);
  const auto each = [plan](auto read) {
    return
        [plan, read](const json& item, const std::string& path) { return read(item, path, plan); };
  };
  reader.ReadList("ranks", kMaxRanks, each(ReadRank));
  if (reader.Has("resident")) reader.ReadList("resident", kMaxRanks, each(ReadResident));
  reader.ReadList("computes", kMaxOps, each(ReadCompute));
  reader.ReadList("transfers", kMaxOps, each(ReadTransfer));
  if (plan->direction == Direction::kBackward) {
    reader.ReadString("gradient_home", kMaxSlotName, &plan->gradient_home);
  }
  return reader.Finish();
}

}  // namespace

absl::StatusOr<Plan> ParsePlanJson(absl::string_view text, const PlanJsonOptions& options) {
  ANNULUS_ASSIGN_OR_RETURN(
      const json document,
      ParseJsonBounded(text, {options.max_bytes, kMaxJsonValues, kMaxJsonDepth}));
  Plan plan;
  ANNULUS_RETURN_IF_ERROR(ReadPlan(document, options, &plan));
  if (options.verify_digest) {
    const std::string digest = PlanDigest(plan);
    if (digest != plan.digest) return Wrong("digest", digest, plan.digest);
  }
  return plan;
}

}  // namespace annulus::ring
