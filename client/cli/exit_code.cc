// SPDX-License-Identifier: Apache-2.0
#include "client/cli/exit_code.h"

#include <cstdio>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "annulus/types.h"

namespace annulus::cli {
namespace {

constexpr char kUsagePayload[] = "annulus/usage";

bool IsRefusal(const absl::Status& status) {
  const auto detail = client::GetFaultDetail(status);
  if (detail && detail->reason == "NOT_ENOUGH_WORKERS") return true;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::Status UsageError(const absl::Status& status) {
  if (status.ok()) return status;
  absl::Status marked(status.code(), status.message());
  marked.SetPayload(kUsagePayload, absl::Cord("1"));
  return marked;
}

absl::Status UsageError(const std::string& message) {
  return UsageError(absl::InvalidArgumentError(message));
}

ExitCode ExitCodeFor(const absl::Status& status) {
  if (status.ok()) return kDone;
  if (status.GetPayload(kUsagePayload)) return kUsage;
  return IsRefusal(status) ? kRefused : kFault;
}

int Fail(const absl::Status& status) {
  const ExitCode code = ExitCodeFor(status);
  const char* kind = code == kRefused ? "refused: " : code == kFault ? "fault: " : "";
  std::string text = absl::StrCat("annulus: ", kind, std::string(status.message()), "\n");
  if (const auto detail = client::GetFaultDetail(status)) {
    absl::StrAppend(&text, "  ", detail->reason);
    for (const auto& [key, value] : detail->metadata) {
      absl::StrAppend(&text, ", ", key, " ", value);
    }
    absl::StrAppend(&text, "\n");
  }
  std::fputs(text.c_str(), stderr);
  return code;
}

}  // namespace annulus::cli
