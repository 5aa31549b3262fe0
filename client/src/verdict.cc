// SPDX-License-Identifier: Apache-2.0
#include "client/src/verdict.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"

namespace annulus::client {
namespace {

std::string ReasonOf(const absl::Status& status) {
  const auto info = GetFaultInfo(status);
  return info ? info->reason : "";
}

// Lower is better informed.
int Standing(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == "WORKER_LOST" || reason == "WORKER_SILENT") return 0;
  if (reason == "PEER_UNREACHABLE") return 2;
  if (reason == "REQUEST_FAILED" || reason == "RELEASED") return 4;
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return 7;
    case absl::StatusCode::kDeadlineExceeded:
      return reason.empty() ? 6 : 5;
    case absl::StatusCode::kUnavailable:
      return reason.empty() ? 3 : 2;
    default:
      return 1;
  }
}

absl::Status Named(const RankStatus& rank) {
  FaultInfo info = GetFaultInfo(rank.status).value_or(FaultInfo{});
  const bool names_culprit = info.metadata.count("rank") > 0;
  std::string message(rank.status.message());
  if (!names_culprit) {
    info.metadata["rank"] = absl::StrCat(rank.rank);
    info.metadata["worker"] = rank.worker;
    message = absl::StrCat("rank ", rank.rank, " (", rank.worker, "): ", message);
  }
  if (info.reason.empty() && absl::IsUnavailable(rank.status)) info.reason = "WORKER_UNREACHABLE";
  if (info.reason.empty()) info.reason = absl::StatusCodeToString(rank.status.code());
  return WithFaultInfo(absl::Status(rank.status.code(), message), info);
}

}  // namespace

bool IsAuthoritative(const absl::Status& status) { return !status.ok() && Standing(status) == 0; }

bool EndsEpoch(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == "WORKER_LOST" || reason == "WORKER_SILENT" || reason == "PEER_UNREACHABLE" ||
         reason == "REQUEST_FAILED" || reason == "WORKER_UNREACHABLE";
}

bool KnownQuiet(const absl::Status& status) {
  if (status.ok() || GetFaultInfo(status)) return true;
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnknown:
      return false;
    default:
      return true;
  }
}

absl::Status ChooseVerdict(const std::vector<RankStatus>& ranks) {
  const RankStatus* best = nullptr;
  for (const RankStatus& rank : ranks) {
    if (rank.status.ok()) continue;
    if (best == nullptr || Standing(rank.status) < Standing(best->status)) best = &rank;
  }
  return best == nullptr ? absl::OkStatus() : Named(*best);
}

}  // namespace annulus::client
