// SPDX-License-Identifier: Apache-2.0
#include "server/worker/fault_text.h"

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"

namespace annulus::worker {
namespace {

const char* VerbOf(const std::string& reason) {
  if (reason == "WORKER_LOST") return "was lost";
  if (reason == "WORKER_SILENT") return "fell silent";
  if (reason == "PEER_UNREACHABLE") return "could not be reached";
  if (reason == "REQUEST_FAILED") return "failed its part of a request";
  if (reason == "HOP_TIMEOUT") return "sent nothing within the hop timeout";
  if (reason == "DATA_CORRUPTED") return "sent bytes that fail their checksum";
  return "stopped";
}

std::string NameRank(int rank, const std::string& worker) {
  return worker.empty() ? absl::StrCat("rank ", rank)
                        : absl::StrCat("rank ", rank, " (worker ", worker, ")");
}

// "rank 1 waited for its KV", its: the culprit's.
std::string Doing(const FailurePoint& at, int culprit) {
  if (at.peer < 0) return absl::StrCat("rank ", at.rank, " computed");
  if (at.peer == culprit) return absl::StrCat("rank ", at.rank, " waited for its KV");
  return absl::StrCat("rank ", at.rank, " waited for rank ", at.peer);
}

FaultInfo Info(const std::string& reason, int rank, const std::string& worker, int step,
               const std::string& group, uint64_t epoch, const FailurePoint& at) {
  FaultInfo info;
  info.reason = reason;
  if (rank >= 0) info.metadata["rank"] = absl::StrCat(rank);
  if (!worker.empty()) info.metadata["worker"] = worker;
  info.metadata["step"] = absl::StrCat(step);
  if (at.peer >= 0) info.metadata["peer"] = absl::StrCat(at.peer);
  info.metadata["observer_rank"] = absl::StrCat(at.rank);
  info.metadata["group"] = group;
  info.metadata["epoch"] = absl::StrCat(epoch);
  if (!at.request_id.empty()) info.metadata["request_id"] = at.request_id;
  return info;
}

}  // namespace

absl::Status VerdictStatus(const FaultVerdict& verdict, const FailurePoint& at) {
  const int step = verdict.step >= 0 ? verdict.step : at.step;
  std::string text;
  if (verdict.culprit_rank >= 0) {
    text = absl::StrCat(NameRank(verdict.culprit_rank, verdict.culprit_worker), " ",
                        VerbOf(verdict.reason), " at step ", step, " while ",
                        Doing(at, verdict.culprit_rank));
  } else {
    text = absl::StrCat("the epoch ended (", verdict.reason, ") at step ", step, " while ",
                        Doing(at, -1));
  }
  absl::StrAppend(&text, " (group ", verdict.group, ", epoch ", verdict.epoch, ")");
  if (!verdict.message.empty()) absl::StrAppend(&text, ": ", verdict.message);
  return WithFaultInfo(absl::UnavailableError(text),
                       Info(verdict.reason, verdict.culprit_rank, verdict.culprit_worker, step,
                            verdict.group, verdict.epoch, at));
}

absl::Status LocalStatus(absl::StatusCode code, const std::string& reason, int suspect,
                         const GroupAssignment& group, const FailurePoint& at,
                         const std::string& detail) {
  const bool named = suspect >= 0 && static_cast<size_t>(suspect) < group.workers.size();
  const std::string worker = named ? group.workers[static_cast<size_t>(suspect)] : "";
  std::string text;
  if (suspect >= 0 && suspect != at.rank) {
    text = absl::StrCat(NameRank(suspect, worker), " ", VerbOf(reason), " at step ", at.step,
                        " while ", Doing(at, suspect));
  } else {
    const bool own = static_cast<size_t>(at.rank) < group.workers.size();
    text = absl::StrCat(NameRank(at.rank, own ? group.workers[static_cast<size_t>(at.rank)] : ""),
                        " ended its request at step ", at.step);
    if (at.peer >= 0) absl::StrAppend(&text, " while it waited for rank ", at.peer);
  }
  absl::StrAppend(&text, " (group ", group.group, ", epoch ", group.epoch, "): ", detail);
  return WithFaultInfo(absl::Status(code, text),
                       Info(reason, suspect, worker, at.step, group.group, group.epoch, at));
}

}  // namespace annulus::worker
