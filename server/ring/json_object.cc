// SPDX-License-Identifier: Apache-2.0
#include "server/ring/json_object.h"

namespace annulus::ring {

using nlohmann::json;

absl::Status Wrong(const std::string& field, absl::string_view expected, absl::string_view got) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": expected ", expected, ", got ", got));
}

std::string Shown(const json& value) {
  if (value.is_structured()) return absl::StrCat("an ", value.type_name());
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() <= 64 ? text : absl::StrCat(text.substr(0, 61), "...");
}

int64_t IntegerIn(const json& value, int64_t low, int64_t high) {
  if (!value.is_number_integer()) return kNoInteger;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(kNoInteger)) {
    return kNoInteger;
  }
  const int64_t number = value.get<int64_t>();
  return number < low || number > high ? kNoInteger : number;
}

}  // namespace annulus::ring
