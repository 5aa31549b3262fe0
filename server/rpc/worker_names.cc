// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_names.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace annulus::rpc {
namespace {

// Text from outside is echoed only when it is harmless to a log.
absl::Status Refuse(absl::string_view field, absl::string_view expected, absl::string_view got) {
  const bool printable = got.size() <= 64 && std::all_of(got.begin(), got.end(), [](char c) {
                           return absl::ascii_isprint(static_cast<unsigned char>(c));
                         });
  return absl::InvalidArgumentError(
      printable ? absl::StrCat(field, ": expected ", expected, ", got \"", got, "\"")
                : absl::StrCat(field, ": expected ", expected, ", got ", got.size(), " bytes"));
}

template <typename Allowed>
bool Matches(absl::string_view text, size_t longest, Allowed allowed) {
  return !text.empty() && text.size() <= longest && std::all_of(text.begin(), text.end(), allowed);
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLower(char c) { return c >= 'a' && c <= 'z'; }

}  // namespace

absl::Status CheckResourceName(absl::string_view field, absl::string_view name) {
  if (Matches(name, 63, [](char c) { return IsLower(c) || IsDigit(c) || c == '-'; })) {
    return absl::OkStatus();
  }
  return Refuse(field, "1..63 characters [a-z0-9-]", name);
}

absl::Status CheckId(absl::string_view field, absl::string_view id) {
  const auto allowed = [](char c) {
    return IsLower(c) || IsDigit(c) || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
  };
  if (Matches(id, 64, allowed)) return absl::OkStatus();
  return Refuse(field, "1..64 characters [A-Za-z0-9._-]", id);
}

absl::Status CheckHex(absl::string_view field, absl::string_view text, size_t digits) {
  const auto allowed = [](char c) { return IsDigit(c) || (c >= 'a' && c <= 'f'); };
  if (text.size() == digits && Matches(text, digits, allowed)) return absl::OkStatus();
  return Refuse(field, absl::StrCat(digits, " lower-case hex digits"), text);
}

}  // namespace annulus::rpc
