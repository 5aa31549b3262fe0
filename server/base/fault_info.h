// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace annulus {

// What a failure carries beside its message: a reason for programs (UPPER_SNAKE) and the rank,
// worker, step, peer ... known. Travels inside as a payload of absl::Status, on the wire as
// google.rpc.ErrorInfo.
struct FaultInfo {
  std::string reason;
  std::map<std::string, std::string> metadata;
};

inline constexpr char kFaultInfoPayload[] = "annulus/fault-info";

// `status` with `info` attached. Keys and values must not contain newlines or tabs; such characters
// become spaces.
inline absl::Status WithFaultInfo(absl::Status status, const FaultInfo& info) {
  auto clean = [](std::string text) {
    for (char& c : text) {
      if (c == '\n' || c == '\t') c = ' ';
    }
    return text;
  };
  std::string text = clean(info.reason);
  for (const auto& [key, value] : info.metadata) {
    absl::StrAppend(&text, "\n", clean(key), "\t", clean(value));
  }
  status.SetPayload(kFaultInfoPayload, absl::Cord(text));
  return status;
}

inline std::optional<FaultInfo> GetFaultInfo(const absl::Status& status) {
  const auto payload = status.GetPayload(kFaultInfoPayload);
  if (!payload) return std::nullopt;
  FaultInfo info;
  bool first = true;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(std::string(*payload), '\n'))) {
    if (first) {
      info.reason = line;
      first = false;
      continue;
    }
    std::pair<std::string, std::string> entry = absl::StrSplit(line, absl::MaxSplits('\t', 1));
    info.metadata.insert(entry);
  }
  return info;
}

}  // namespace annulus
