// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/blame.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace annulus::coordinator {
namespace {

// The request that reports speak of, as far as one rank has come with it.
const Progress* ProgressOf(const State& state, const Group& group, int rank,
                           const std::string& request_id) {
  const auto found = state.workers.find(group.members[rank].worker);
  if (found == state.workers.end()) return nullptr;
  for (const Progress& progress : found->second.progress) {
    if (progress.group != group.name || progress.epoch != group.epoch) continue;
    if (request_id.empty() || progress.request_id == request_id) return &progress;
  }
  return nullptr;
}

// Orders ranks by how far they have come: (step, advances). One without the request, which it has
// finished or not begun, is taken to be the furthest: it is not what others are seen waiting in.
std::pair<int, uint64_t> Distance(const Progress* progress) {
  if (progress == nullptr) return {std::numeric_limits<int>::max(), 0};
  return {progress->step, progress->advances};
}

bool IsRank(const Group& group, int rank) {
  return rank >= 0 && rank < static_cast<int>(group.members.size());
}

int EndOfChain(const State& state, const Group& group, int rank, const std::string& request_id) {
  std::vector<int> path;
  while (true) {
    const auto seen = std::find(path.begin(), path.end(), rank);
    if (seen != path.end()) {
      return *std::min_element(seen, path.end(), [&](int a, int b) {
        return std::pair(Distance(ProgressOf(state, group, a, request_id)), a) <
               std::pair(Distance(ProgressOf(state, group, b, request_id)), b);
      });
    }
    path.push_back(rank);
    const Progress* progress = ProgressOf(state, group, rank, request_id);
    if (progress == nullptr || !IsRank(group, progress->waiting_for_rank)) return rank;
    rank = progress->waiting_for_rank;
  }
}

// Where a report's chain begins: nobody, if the reporter neither names a suspect nor waits.
std::optional<int> StartOfChain(const State& state, const Group& group,
                                const Suspicion::Report& report) {
  if (IsRank(group, report.suspect)) return report.suspect;
  const Progress* progress = ProgressOf(state, group, report.reporter, report.request_id);
  if (progress != nullptr && IsRank(group, progress->waiting_for_rank)) {
    return progress->waiting_for_rank;
  }
  return std::nullopt;
}

}  // namespace

Blame FindCulprit(const State& state, const Group& group) {
  const Suspicion& suspicion = *group.suspicion;
  std::optional<Blame> best;
  std::pair<std::pair<int, uint64_t>, int> best_key;
  for (const Suspicion::Report& report : suspicion.reports) {
    const std::optional<int> start = StartOfChain(state, group, report);
    const int rank = start ? EndOfChain(state, group, *start, report.request_id) : report.reporter;
    const auto key = std::pair(Distance(ProgressOf(state, group, rank, report.request_id)), rank);
    if (best && best_key <= key) continue;
    best_key = key;
    const FaultReason alone =
        suspicion.setup ? FaultReason::kSetupFailed : FaultReason::kRequestFailed;
    best = Blame{rank, start ? FaultReason::kPeerUnreachable : alone,
                 absl::StrCat("reported by rank ", report.reporter, " (worker ",
                              group.members[report.reporter].worker, "): ", report.message)};
  }
  return *best;
}

}  // namespace annulus::coordinator
