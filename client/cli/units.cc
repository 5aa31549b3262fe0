// SPDX-License-Identifier: Apache-2.0
#include "client/cli/units.h"

#include <cmath>
#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

using UnitTable = std::map<std::string, double>;

const UnitTable& ByteUnits() {
  static const UnitTable& units = *new UnitTable{{"", 1},
                                                 {"B", 1},
                                                 {"KB", 1e3},
                                                 {"kB", 1e3},
                                                 {"MB", 1e6},
                                                 {"GB", 1e9},
                                                 {"TB", 1e12},
                                                 {"KiB", 1024.0},
                                                 {"K", 1024.0},
                                                 {"MiB", 1048576.0},
                                                 {"M", 1048576.0},
                                                 {"GiB", 1073741824.0},
                                                 {"G", 1073741824.0},
                                                 {"TiB", 1099511627776.0}};
  return units;
}

const UnitTable& TimeUnits() {
  static const UnitTable& units = *new UnitTable{
      {"", 1}, {"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {"m", 60}, {"h", 3600}};
  return units;
}

// A finite number followed by one of `units`; nullopt otherwise.
std::optional<double> ParseWithUnit(const std::string& text, const UnitTable& units) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !std::isfinite(number)) return std::nullopt;
  const auto unit = units.find(end);
  if (unit == units.end()) return std::nullopt;
  return number * unit->second;
}

absl::Status Malformed(const std::string& text, const std::string& expected) {
  return absl::InvalidArgumentError(absl::StrCat("expected ", expected, ", got \"", text, "\""));
}

}  // namespace

absl::StatusOr<double> ParseRate(const std::string& text) {
  const std::string suffix = "/s";
  if (text.size() > suffix.size() && text.substr(text.size() - suffix.size()) == suffix) {
    const auto rate = ParseWithUnit(text.substr(0, text.size() - suffix.size()), ByteUnits());
    if (rate && *rate > 0) return *rate;
  }
  return Malformed(text, "a rate such as 2GB/s or 200MB/s");
}

absl::StatusOr<double> ParseSeconds(const std::string& text) {
  const auto seconds = ParseWithUnit(text, TimeUnits());
  if (seconds && *seconds >= 0) return *seconds;
  return Malformed(text, "a time such as 20us, 1.5ms or 30s");
}

absl::StatusOr<uint64_t> ParseBytes(const std::string& text) {
  const auto bytes = ParseWithUnit(text, ByteUnits());
  if (bytes && *bytes >= 1 && *bytes < 9e18) return static_cast<uint64_t>(*bytes);
  return Malformed(text, "an amount such as 512MiB or 4GiB");
}

absl::StatusOr<EmulatedLinks> ParseEmulatedLinks(const std::string& text) {
  EmulatedLinks links;
  std::set<std::string> seen;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const std::vector<std::string> pair = absl::StrSplit(part, absl::MaxSplits('=', 1));
    const bool known = pair[0] == "inner" || pair[0] == "outer" || pair[0] == "latency";
    if (pair.size() != 2 || !known || !seen.insert(pair[0]).second) {
      return Malformed(text, "inner=RATE,outer=RATE[,latency=TIME], each once");
    }
    if (pair[0] == "latency") {
      ANNULUS_ASSIGN_OR_RETURN(links.inner.latency_seconds, ParseSeconds(pair[1]));
      links.outer.latency_seconds = links.inner.latency_seconds;
    } else {
      client::LinkModel& link = pair[0] == "inner" ? links.inner : links.outer;
      ANNULUS_ASSIGN_OR_RETURN(link.bytes_per_second, ParseRate(pair[1]));
    }
  }
  if (links.inner.bytes_per_second == 0 && links.outer.bytes_per_second == 0) {
    return Malformed(text, "a rate of one of the links beside the latency");
  }
  return links;
}

std::string FormatBytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrFormat("%.0f B", bytes)
                   : absl::StrFormat("%.2f %s", bytes, kUnits[unit]);
}

std::string FormatSeconds(double seconds) {
  if (seconds == 0) return "0";
  if (seconds < 1e-3) return absl::StrFormat("%.0f us", seconds * 1e6);
  if (seconds < 1) return absl::StrFormat("%.1f ms", seconds * 1e3);
  return absl::StrFormat("%.2f s", seconds);
}

}  // namespace annulus::cli
