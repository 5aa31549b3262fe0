// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace annulus::worker {

inline constexpr size_t kNameLengthMax = 64;

// OK for 1..64 characters [A-Za-z0-9._-]: ids of requests and tensors. INVALID_ARGUMENT else.
inline absl::Status CheckName(std::string_view what, std::string_view name) {
  bool good = !name.empty() && name.size() <= kNameLengthMax;
  for (const char c : name.substr(0, kNameLengthMax)) {
    good = good && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '_' || c == '-');
  }
  if (good) return absl::OkStatus();
  const std::string_view shown = name.substr(0, kNameLengthMax);
  return absl::InvalidArgumentError(absl::StrCat(
      absl::string_view(what.data(), what.size()), " \"",
      absl::CHexEscape(absl::string_view(shown.data(), shown.size())), "\" (", name.size(),
      " characters) is not 1 to ", kNameLengthMax, " characters of [A-Za-z0-9._-]"));
}

}  // namespace annulus::worker
