// SPDX-License-Identifier: Apache-2.0
#include "client/cli/visible_gpus.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace annulus::cli {
namespace {

bool IsNumber(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

}  // namespace

int VisibleGpus(const char* visible, const std::string& devices) {
  int count = 0;
  if (visible != nullptr) {
    // As CUDA reads it: what follows the first entry that names no device is not seen.
    for (absl::string_view entry : absl::StrSplit(visible, ',')) {
      entry = absl::StripAsciiWhitespace(entry);
      if (entry.empty() || entry == "-1" || entry == "NoDevFiles") break;
      ++count;
    }
    return count;
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(devices, error)) {
    const std::string name = entry.path().filename().string();
    absl::string_view number = name;
    if (absl::ConsumePrefix(&number, "nvidia") && IsNumber(number)) ++count;
  }
  return count;
}

int VisibleGpus() { return VisibleGpus(std::getenv("CUDA_VISIBLE_DEVICES"), "/dev"); }

}  // namespace annulus::cli
