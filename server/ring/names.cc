// SPDX-License-Identifier: Apache-2.0
#include "server/ring/names.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace annulus::ring {
namespace {

using absl::string_view;

template <typename Enum>
struct Table;
template <>
struct Table<Algorithm> {
  static constexpr std::array<string_view, 2> kNames = {"ring", "double_ring"};
};
template <>
struct Table<Direction> {
  static constexpr std::array<string_view, 2> kNames = {"forward", "backward"};
};
template <>
struct Table<Layout> {
  static constexpr std::array<string_view, 3> kNames = {"contiguous", "zigzag", "striped"};
};
template <>
struct Table<MaskKind> {
  static constexpr std::array<string_view, 2> kNames = {"full", "causal"};
};
template <>
struct Table<MaskCase> {
  static constexpr std::array<string_view, 3> kNames = {"empty", "full", "partial"};
};
template <>
struct Table<Payload> {
  static constexpr std::array<string_view, 2> kNames = {"kv", "dkv"};
};
template <>
struct Table<Combine> {
  static constexpr std::array<string_view, 2> kNames = {"replace", "add"};
};
template <>
struct Table<Level> {
  static constexpr std::array<string_view, 2> kNames = {"inner", "outer"};
};

template <typename Enum>
string_view NameOf(Enum value) {
  const auto index = static_cast<size_t>(value);
  return index < Table<Enum>::kNames.size() ? Table<Enum>::kNames[index] : "?";
}

}  // namespace

string_view Name(Algorithm value) { return NameOf(value); }
string_view Name(Direction value) { return NameOf(value); }
string_view Name(Layout value) { return NameOf(value); }
string_view Name(MaskKind value) { return NameOf(value); }
string_view Name(MaskCase value) { return NameOf(value); }
string_view Name(Payload value) { return NameOf(value); }
string_view Name(Combine value) { return NameOf(value); }
string_view Name(Level value) { return NameOf(value); }

template <typename Enum>
std::optional<Enum> FromName(string_view name) {
  for (size_t i = 0; i < Table<Enum>::kNames.size(); ++i) {
    if (Table<Enum>::kNames[i] == name) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

template <typename Enum>
std::string AllNames() {
  return absl::StrJoin(Table<Enum>::kNames, ", ");
}

#define ANNULUS_INSTANTIATE(Enum)                                \
  template std::optional<Enum> FromName<Enum>(string_view name); \
  template std::string AllNames<Enum>();
ANNULUS_INSTANTIATE(Algorithm)
ANNULUS_INSTANTIATE(Direction)
ANNULUS_INSTANTIATE(Layout)
ANNULUS_INSTANTIATE(MaskKind)
ANNULUS_INSTANTIATE(MaskCase)
ANNULUS_INSTANTIATE(Payload)
ANNULUS_INSTANTIATE(Combine)
ANNULUS_INSTANTIATE(Level)
#undef ANNULUS_INSTANTIATE

std::string ToString(const TokenRanges& ranges) {
  return absl::StrJoin(ranges, " ", [](std::string* out, const TokenRange& range) {
    absl::StrAppend(out, "[", range.begin, ",", range.end);
    if (range.stride != 1) absl::StrAppend(out, ",", range.stride);
    absl::StrAppend(out, "]");
  });
}

}  // namespace annulus::ring
