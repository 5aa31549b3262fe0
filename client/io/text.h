// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace annulus::io {

// Outside text for an error message: in quotes, cut at 80 bytes, all but printable ASCII replaced.
inline std::string Quoted(std::string_view text) {
  constexpr size_t kMax = 80;
  std::string quoted = "'";
  for (char c : text.substr(0, kMax)) quoted += (c >= ' ' && c <= '~') ? c : '?';
  return quoted + (text.size() > kMax ? "...'" : "'");
}

}  // namespace annulus::io
