// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/io/mapped_file.h"
#include "client/io/text.h"
#include "client/trace/chrome_trace.h"
#include "server/base/status_macros.h"

namespace annulus::trace {
namespace {

using Json = nlohmann::json;

constexpr int kDepthMax = 8;

absl::Status Malformed(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("trace: ", what));
}

// Nesting is bounded before anything is built.
absl::Status CheckDepth(std::string_view json) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kDepthMax) return Malformed(absl::StrCat("nested deeper than ", kDepthMax));
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return absl::OkStatus();
}

// Fields of one JSON object; `where` names it in errors.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  absl::StatusOr<std::string> String(const char* key) const {
    const Json* value = Find(key);
    if (value == nullptr || !value->is_string()) return Missing(key, "a string");
    return value->get<std::string>();
  }

  absl::StatusOr<int> Integer(const char* key, int low) const {
    const Json* value = Find(key);
    if (value == nullptr || !value->is_number_integer()) return Missing(key, "an integer");
    // Beyond the range of int64 it arrives as a negative number, and is refused as that.
    const auto number = value->get<int64_t>();
    if (number < low || number > std::numeric_limits<int>::max()) {
      return Malformed(
          absl::StrCat(where_, ": ", key, " is ", number, ", expected at least ", low));
    }
    return static_cast<int>(number);
  }

  // Microseconds >= 0, as nanoseconds.
  absl::StatusOr<int64_t> Time(const char* key) const {
    const Json* value = Find(key);
    if (value == nullptr || !value->is_number()) return Missing(key, "a number");
    const auto us = value->get<double>();
    if (!(us >= 0 && us < 1e15)) {
      return Malformed(absl::StrCat(where_, ": ", key, " is ", us, ", expected 0 to 1e15 us"));
    }
    return static_cast<int64_t>(std::llround(us * 1000));
  }

  const Json* Find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() ? nullptr : &*found;
  }

  absl::Status Missing(const char* key, const char* what) const {
    return Malformed(absl::StrCat(where_, ": ", key, " must be ", what));
  }

 private:
  const Json& json_;
  const std::string where_;
};

absl::StatusOr<RankTrace> ParseRank(const Json& json) {
  if (!json.is_object()) return Malformed("otherData.ranks must be objects");
  const Fields fields(json, "otherData.ranks");
  RankTrace rank;
  ANNULUS_ASSIGN_OR_RETURN(rank.rank, fields.Integer("rank", 0));
  ANNULUS_ASSIGN_OR_RETURN(rank.worker, fields.String("worker"));
  ANNULUS_ASSIGN_OR_RETURN(rank.node, fields.String("node"));
  if (const Json* overlap = fields.Find("overlap")) {
    if (!overlap->is_number()) return fields.Missing("overlap", "a number");
    rank.overlap = overlap->get<double>();
  }
  return rank;
}

absl::StatusOr<Trace> ParseHead(const Json& other) {
  const Fields fields(other, "otherData");
  ANNULUS_ASSIGN_OR_RETURN(const std::string schema, fields.String("schema"));
  if (schema != kTraceSchema) {
    return Malformed(
        absl::StrCat("schema ", io::Quoted(schema), ", expected '", kTraceSchema, "'"));
  }
  Trace trace;
  ANNULUS_ASSIGN_OR_RETURN(trace.title, fields.String("title"));
  const Json* metadata = fields.Find("metadata");
  if (metadata == nullptr || !metadata->is_object()) return fields.Missing("metadata", "an object");
  for (const auto& [key, value] : metadata->items()) {
    if (!value.is_string()) return fields.Missing("metadata", "an object of strings");
    trace.metadata[key] = value.get<std::string>();
  }
  const Json* ranks = fields.Find("ranks");
  if (ranks == nullptr || !ranks->is_array() || ranks->size() > kTraceRanksMax) {
    return fields.Missing("ranks", "an array of at most 4096");
  }
  std::set<int> seen;
  for (const Json& json : *ranks) {
    ANNULUS_ASSIGN_OR_RETURN(RankTrace rank, ParseRank(json));
    if (!seen.insert(rank.rank).second) {
      return Malformed(absl::StrCat("rank ", rank.rank, " stands there twice"));
    }
    trace.ranks.push_back(std::move(rank));
  }
  return trace;
}

absl::StatusOr<Op> ParseOp(OpKind kind, const Fields& event, const std::string& where) {
  const Json* json = event.Find("args");
  if (json == nullptr || !json->is_object()) return event.Missing("args", "an object");
  const Fields args(*json, where + ".args");
  Op op;
  op.kind = kind;
  ANNULUS_ASSIGN_OR_RETURN(op.start_ns, event.Time("ts"));
  ANNULUS_ASSIGN_OR_RETURN(const int64_t duration_ns, event.Time("dur"));
  op.end_ns = op.start_ns + duration_ns;
  ANNULUS_ASSIGN_OR_RETURN(op.step, args.Integer("step", -1));
  ANNULUS_ASSIGN_OR_RETURN(op.label, args.String("label"));
  if (!IsCompute(kind)) {
    ANNULUS_ASSIGN_OR_RETURN(const std::string level, args.String("level"));
    const std::optional<Level> known = ParseLevel(level);
    if (!known) return args.Missing("level", "'inner' or 'outer'");
    op.level = *known;
    ANNULUS_ASSIGN_OR_RETURN(op.peer, args.Integer("peer", -1));
  }
  if (const Json* bytes = args.Find("bytes")) {
    if (!bytes->is_number_unsigned()) return args.Missing("bytes", "an integer >= 0");
    op.bytes = bytes->get<uint64_t>();
  }
  return op;
}

absl::Status ParseEvents(const Json& events, Trace& trace) {
  std::map<int, RankTrace*> by_rank;
  for (RankTrace& rank : trace.ranks) by_rank[rank.rank] = &rank;
  for (size_t i = 0; i < events.size(); ++i) {
    const std::string where = absl::StrCat("traceEvents[", i, "]");
    if (!events[i].is_object()) return Malformed(where + " must be an object");
    const Fields event(events[i], where);
    const absl::StatusOr<std::string> phase = event.String("ph");
    const absl::StatusOr<std::string> category = event.String("cat");
    if (!phase.ok() || *phase != "X" || !category.ok()) continue;
    const std::optional<OpKind> kind = ParseOpKind(*category);
    if (!kind) continue;
    ANNULUS_ASSIGN_OR_RETURN(const int pid, event.Integer("pid", 0));
    const auto rank = by_rank.find(pid);
    if (rank == by_rank.end()) {
      return Malformed(absl::StrCat(where, ": rank ", pid, " is not in otherData.ranks"));
    }
    ANNULUS_ASSIGN_OR_RETURN(Op op, ParseOp(*kind, event, where));
    rank->second->ops.push_back(std::move(op));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Trace> ParseChromeTrace(std::string_view json) {
  if (json.size() > kTraceBytesMax) {
    return Malformed(absl::StrCat(json.size(), " bytes, expected at most ", kTraceBytesMax));
  }
  ANNULUS_RETURN_IF_ERROR(CheckDepth(json));
  const Json root = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return Malformed("not JSON");
  if (!root.is_object()) return Malformed("expected an object");
  const Fields fields(root, "trace");
  const Json* other = fields.Find("otherData");
  if (other == nullptr || !other->is_object()) return fields.Missing("otherData", "an object");
  ANNULUS_ASSIGN_OR_RETURN(Trace trace, ParseHead(*other));
  const Json* events = fields.Find("traceEvents");
  if (events == nullptr || !events->is_array()) return fields.Missing("traceEvents", "an array");
  ANNULUS_RETURN_IF_ERROR(ParseEvents(*events, trace));
  return trace;
}

absl::StatusOr<Trace> ReadChromeTrace(const std::string& path) {
  ANNULUS_ASSIGN_OR_RETURN(const io::MappedFile file, io::MappedFile::Open(path));
  const std::span<const std::byte> bytes = file.bytes();
  absl::StatusOr<Trace> trace =
      ParseChromeTrace({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (trace.ok()) return trace;
  return absl::Status(trace.status().code(), absl::StrCat(path, ": ", trace.status().message()));
}

}  // namespace annulus::trace
