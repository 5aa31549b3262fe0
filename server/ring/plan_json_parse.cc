// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/ring/digest.h"
#include "server/ring/json_document.h"
#include "server/ring/names.h"
#include "server/ring/plan_json.h"
#include "server/ring/plan_limits.h"
#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

using nlohmann::json;

constexpr int64_t kAny = std::numeric_limits<int64_t>::max();

absl::Status Wrong(const std::string& field, absl::string_view expected, absl::string_view got) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": expected ", expected, ", got ", got));
}

// What stands in the text, cut short.
std::string Shown(const json& value) {
  if (value.is_structured()) return absl::StrCat("an ", value.type_name());
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() <= 64 ? text : absl::StrCat(text.substr(0, 61), "...");
}

// One JSON object being read. The first failure sticks and later reads do nothing; Finish reports
// it, or a field that nobody asked for.
class ObjectReader {
 public:
  ObjectReader(const json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object.is_object())
      status_ = Wrong(path_.empty() ? "plan" : path_, "an object", Shown(object));
  }

  std::string Path(absl::string_view field) const {
    return path_.empty() ? std::string(field) : absl::StrCat(path_, ".", field);
  }

  bool Has(const char* field) const { return status_.ok() && object_.contains(field); }

  template <typename Integer>
  void ReadInteger(const char* field, int64_t low, int64_t high, Integer* out) {
    const json* value = Take(field);
    if (value == nullptr) return;
    const int64_t number = IntegerOr(*value, low, high);
    if (number == kAny) {
      status_ = Wrong(Path(field), absl::StrCat("an integer in ", low, "..", high), Shown(*value));
      return;
    }
    *out = static_cast<Integer>(number);
  }

  void ReadString(const char* field, size_t max_size, std::string* out) {
    const json* value = Take(field);
    if (value == nullptr) return;
    if (!value->is_string() || value->get_ref<const std::string&>().size() > max_size) {
      status_ = Wrong(Path(field), absl::StrCat("a string of at most ", max_size, " bytes"),
                      Shown(*value));
      return;
    }
    *out = value->get_ref<const std::string&>();
  }

  template <typename Enum>
  void ReadEnum(const char* field, Enum* out) {
    const json* value = Take(field);
    if (value == nullptr) return;
    const std::optional<Enum> named =
        value->is_string() ? FromName<Enum>(value->get_ref<const std::string&>()) : std::nullopt;
    if (!named.has_value()) {
      status_ = Wrong(Path(field), absl::StrCat("one of ", AllNames<Enum>()), Shown(*value));
      return;
    }
    *out = *named;
  }

  void ReadRanges(const char* field, TokenRanges* out) {
    ReadList(field, kMaxRangesPerList, [&](const json& item, const std::string& path) {
      TokenRange range;
      ANNULUS_RETURN_IF_ERROR(ReadRange(item, path, &range));
      out->push_back(range);
      return absl::OkStatus();
    });
  }

  template <typename ReadItem>
  void ReadList(const char* field, size_t max_size, const ReadItem& read_item) {
    const json* value = Take(field);
    if (value == nullptr) return;
    if (!value->is_array() || value->size() > max_size) {
      status_ = Wrong(Path(field), absl::StrCat("an array of at most ", max_size, " items"),
                      value->is_array() ? absl::StrCat(value->size()) : Shown(*value));
      return;
    }
    for (size_t i = 0; i < value->size() && status_.ok(); ++i) {
      status_ = read_item((*value)[i], absl::StrCat(Path(field), "[", i, "]"));
    }
  }

  // `read` is given the reader of a nested object.
  template <typename Read>
  void ReadObject(const char* field, const Read& read) {
    const json* value = Take(field);
    if (value == nullptr) return;
    ObjectReader nested(*value, Path(field));
    read(nested);
    status_ = nested.Finish();
  }

  absl::Status Finish() {
    if (!status_.ok() || asked_.size() == object_.size()) return status_;
    for (const auto& item : object_.items()) {
      if (std::find(asked_.begin(), asked_.end(), item.key()) == asked_.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat(Path(item.key().substr(0, 64)), ": unknown field"));
      }
    }
    return absl::OkStatus();
  }

 private:
  // The field's value; nullptr, and a status, if there is none.
  const json* Take(const char* field) {
    if (!status_.ok()) return nullptr;
    const auto found = object_.find(field);
    if (found == object_.end()) {
      status_ = absl::InvalidArgumentError(absl::StrCat(Path(field), ": missing"));
      return nullptr;
    }
    asked_.emplace_back(field);
    return &*found;
  }

  // kAny if it is no integer or lies outside.
  static int64_t IntegerOr(const json& value, int64_t low, int64_t high) {
    if (!value.is_number_integer()) return kAny;
    if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(kAny)) {
      return kAny;
    }
    const int64_t number = value.get<int64_t>();
    return number < low || number > high ? kAny : number;
  }

  static absl::Status ReadRange(const json& item, const std::string& path, TokenRange* out) {
    if (!item.is_array() || item.size() < 2 || item.size() > 3) {
      return Wrong(path, "[begin, end] or [begin, end, stride]", Shown(item));
    }
    out->begin = IntegerOr(item[0], 0, kMaxTokens);
    out->end = IntegerOr(item[1], 0, kMaxTokens);
    out->stride = item.size() == 3 ? IntegerOr(item[2], 2, kMaxTokens) : 1;
    if (out->begin == kAny || out->end == kAny || out->stride == kAny || out->begin >= out->end) {
      return Wrong(path, "0 <= begin < end <= 2^40 and, if given, stride >= 2",
                   item.dump().substr(0, 64));
    }
    return absl::OkStatus();
  }

  const json& object_;
  const std::string path_;
  absl::Status status_;
  std::vector<absl::string_view> asked_;
};

absl::Status ReadRank(const json& item, const std::string& path, Plan* plan) {
  RankShard shard;
  ObjectReader reader(item, path);
  reader.ReadInteger("rank", 0, kMaxRanks - 1, &shard.rank);
  reader.ReadRanges("q", &shard.q);
  reader.ReadRanges("kv", &shard.kv);
  plan->ranks.push_back(std::move(shard));
  return reader.Finish();
}

absl::Status ReadResident(const json& item, const std::string& path, Plan* plan) {
  Resident resident;
  ObjectReader reader(item, path);
  reader.ReadInteger("rank", 0, kMaxRanks - 1, &resident.rank);
  reader.ReadString("slot", kMaxSlotName, &resident.slot);
  reader.ReadRanges("kv", &resident.kv);
  plan->resident.push_back(std::move(resident));
  return reader.Finish();
}

absl::Status ReadCompute(const json& item, const std::string& path, Plan* plan) {
  Compute compute;
  ObjectReader reader(item, path);
  reader.ReadInteger("step", 0, kMaxSteps - 1, &compute.step);
  reader.ReadInteger("rank", 0, kMaxRanks - 1, &compute.rank);
  reader.ReadString("slot", kMaxSlotName, &compute.slot);
  reader.ReadRanges("q", &compute.q);
  reader.ReadRanges("kv", &compute.kv);
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
  reader.ReadRanges("tokens", &transfer.tokens);
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
  ObjectReader reader(document, "");
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
