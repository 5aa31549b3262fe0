// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/group_options.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status_macros.h"

namespace annulus::coordinator {
namespace {

std::string Divisors(int number) {
  std::vector<int> divisors;
  for (int d = 1; d <= number; ++d) {
    if (number % d == 0) divisors.push_back(d);
  }
  return absl::StrJoin(divisors, ", ");
}

absl::Status CheckLink(const char* what, const LinkModel& link) {
  for (double value : {link.bytes_per_second, link.latency_seconds}) {
    if (!std::isfinite(value) || value < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " link: expected finite numbers >= 0, got ", link.bytes_per_second,
                       " bytes/s and ", link.latency_seconds, " s"));
    }
  }
  if (link.latency_seconds > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " link: expected a latency of at most 1 s, got ", link.latency_seconds, " s"));
  }
  return absl::OkStatus();
}

absl::Status CheckMembers(const GroupOptions& options) {
  if (options.members.empty()) return absl::OkStatus();
  if (options.members.size() != static_cast<size_t>(options.size)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "members: expected ", options.size, " names, one per rank, got ", options.members.size()));
  }
  std::set<std::string> seen;
  for (const std::string& name : options.members) {
    ANNULUS_RETURN_IF_ERROR(CheckName("member", name));
    if (!seen.insert(name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("members: expected each worker once, got '", name, "' twice"));
    }
  }
  return absl::OkStatus();
}

std::string DescribeLink(const LinkModel& link) {
  return absl::StrCat(link.bytes_per_second, " bytes/s + ", link.latency_seconds, " s");
}

}  // namespace

absl::Status CheckName(absl::string_view what, absl::string_view name) {
  const bool good = !name.empty() && name.size() <= kNameBytesMax &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
                    });
  if (good) return absl::OkStatus();
  const std::string shown = absl::CHexEscape(name.substr(0, kNameBytesMax + 1));
  return absl::InvalidArgumentError(absl::StrCat(what, " name: expected 1 to ", kNameBytesMax,
                                                 " characters of a-z, 0-9 and '-', got '", shown,
                                                 "' (", name.size(), " bytes)"));
}

absl::StatusOr<GroupOptions> NormaliseOptions(GroupOptions options) {
  if (options.size < 1 || options.size > kGroupSizeMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("group size: expected 1 to ", kGroupSizeMax, ", got ", options.size));
  }
  if (options.window_size == 0) options.window_size = options.size;
  if (options.window_size < 0 || options.size % options.window_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("window size: expected a divisor of ",
                                                   options.size, " (", Divisors(options.size),
                                                   "), got ", options.window_size));
  }
  if (options.ranks_per_node < 0 || options.ranks_per_node > kGroupSizeMax) {
    return absl::InvalidArgumentError(absl::StrCat("ranks per node: expected 0 to ", kGroupSizeMax,
                                                   ", got ", options.ranks_per_node));
  }
  ANNULUS_RETURN_IF_ERROR(CheckLink("inner", options.inner_link));
  ANNULUS_RETURN_IF_ERROR(CheckLink("outer", options.outer_link));
  ANNULUS_RETURN_IF_ERROR(CheckMembers(options));
  if (!options.inner_transport.empty()) {
    ANNULUS_RETURN_IF_ERROR(CheckName("inner transport", options.inner_transport));
  }
  if (!options.outer_transport.empty()) {
    ANNULUS_RETURN_IF_ERROR(CheckName("outer transport", options.outer_transport));
  }
  return options;
}

std::string DescribeOptions(const GroupOptions& options) {
  std::string text = absl::StrCat("size ", options.size, ", window ", options.window_size);
  if (options.ranks_per_node > 0) {
    absl::StrAppend(&text, ", ", options.ranks_per_node, " ranks per node");
  }
  const LinkModel none;
  if (!(options.inner_link == none)) {
    absl::StrAppend(&text, ", inner link ", DescribeLink(options.inner_link));
  }
  if (!(options.outer_link == none)) {
    absl::StrAppend(&text, ", outer link ", DescribeLink(options.outer_link));
  }
  if (options.transfers_off) absl::StrAppend(&text, ", transfers off");
  if (!options.inner_transport.empty()) {
    absl::StrAppend(&text, ", inner transport ", options.inner_transport);
  }
  if (!options.outer_transport.empty()) {
    absl::StrAppend(&text, ", outer transport ", options.outer_transport);
  }
  if (!options.members.empty()) {
    absl::StrAppend(&text, ", members ", absl::StrJoin(options.members, " "));
  }
  return text;
}

}  // namespace annulus::coordinator
