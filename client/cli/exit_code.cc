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

// What to do about a failure, by its reason; "" where nothing general can be said.
const char* AdviceFor(const std::string& reason) {
  if (reason == "MEMORY_LIMIT") {
    return "raise the workers' memory limit (--memory-limit) or spread the sequence over more "
           "ranks";
  }
  if (reason == "NOT_ENOUGH_WORKERS") return "start more workers or ask for fewer ranks";
  if (reason == "TOO_MANY_REQUESTS") return "try again later";
  if (reason == "WORKER_LOST" || reason == "WORKER_SILENT" || reason == "WORKER_UNREACHABLE") {
    return "nothing was written; run again once the worker is back or replaced";
  }
  return "";
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
    const std::string advice = AdviceFor(detail->reason);
    absl::StrAppend(&text, "\n", advice.empty() ? "" : "  ", advice, advice.empty() ? "" : "\n");
  }
  std::fputs(text.c_str(), stderr);
  return code;
}

}  // namespace annulus::cli
