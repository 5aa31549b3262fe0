// SPDX-License-Identifier: Apache-2.0
#include "server/apps/cpu_list.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace annulus::apps {
namespace {

constexpr int kCpuMax = 1023;

absl::Status Expected(std::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("expected processors such as 0,2-3, each from 0 to ", kCpuMax,
                   " and once, got \"", absl::string_view(text.data(), text.size()), "\""));
}

bool ParseCpu(absl::string_view text, int* cpu) {
  return absl::SimpleAtoi(text, cpu) && *cpu >= 0 && *cpu <= kCpuMax;
}

}  // namespace

absl::StatusOr<std::vector<int>> ParseCpuList(std::string_view text) {
  std::vector<int> cpus;
  for (const absl::string_view piece :
       absl::StrSplit(absl::string_view(text.data(), text.size()), ',')) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(piece, absl::MaxSplits('-', 1));
    const bool range = piece.size() != ends.first.size();
    int first = 0;
    int last = 0;
    if (!ParseCpu(ends.first, &first) || !ParseCpu(range ? ends.second : ends.first, &last) ||
        last < first) {
      return Expected(text);
    }
    for (int cpu = first; cpu <= last; ++cpu) {
      if (std::find(cpus.begin(), cpus.end(), cpu) != cpus.end()) return Expected(text);
      cpus.push_back(cpu);
    }
  }
  return cpus;
}

}  // namespace annulus::apps
