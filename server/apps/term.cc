// SPDX-License-Identifier: Apache-2.0
#include "server/apps/term.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/apps/process.h"
#include "server/base/status_macros.h"

namespace annulus::apps {
namespace {

// Epochs count on from the term: a later term must be above all of them.
constexpr uint64_t kEpochsPerTerm = 1'000'000;
// Beyond this a double would not hold an epoch, and no clock says it.
constexpr uint64_t kTermMax = uint64_t{1} << 52;

absl::StatusOr<uint64_t> ReadTerm(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !error) return 0;
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  uint64_t term = 0;
  if (!file) return absl::UnavailableError(absl::StrCat("cannot read state file ", path));
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &term) || term > kTermMax) {
    return absl::InvalidArgumentError(absl::StrCat("state file ", path,
                                                   ": expected a term of at most ", kTermMax,
                                                   ", got '", text.substr(0, 32), "'"));
  }
  return term;
}

}  // namespace

absl::StatusOr<uint64_t> NextTerm(const std::string& state_file) {
  const auto clock = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const auto now = static_cast<uint64_t>(std::max<int64_t>(clock.count(), 1));
  if (state_file.empty()) return now;
  ANNULUS_ASSIGN_OR_RETURN(const uint64_t stored, ReadTerm(state_file));
  const uint64_t term = stored < now ? now : stored + kEpochsPerTerm;
  ANNULUS_RETURN_IF_ERROR(WriteFileAtomically(state_file, absl::StrCat(term, "\n")));
  return term;
}

}  // namespace annulus::apps
