// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/suspicion.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/coordinator/blame.h"
#include "server/coordinator/groups.h"
#include "server/coordinator/membership.h"

namespace annulus::coordinator {
namespace {

bool IsDue(const Turn& turn, const Group& group) {
  const TimeMs opened_ms = group.suspicion->opened_ms;
  const TimeMs limit_ms = turn.settings.lease_ms + turn.settings.suspicion_extra_ms;
  if (turn.now - opened_ms >= limit_ms) return true;
  return std::all_of(group.members.begin(), group.members.end(), [&](const Member& member) {
    return turn.state.workers.at(member.worker).last_beat_ms >=
           opened_ms + turn.settings.suspicion_settle_ms;
  });
}

}  // namespace

void OnFaultReport(Turn& turn, const FaultReport& report) {
  if (Hear(turn, report.session) == nullptr) return;
  const Seat seat = FindSeat(turn, report.session, report.group, report.epoch);
  if (seat.rank < 0) return;
  Group& group = *seat.group;
  Member& reporter = group.members[seat.rank];
  if (report.suspect_rank == seat.rank) {
    if (report.step >= 0) reporter.last_step = report.step;
    EndEpoch(turn, group,
             Verdict{.culprit_rank = seat.rank,
                     .reason = FaultReason::kRequestFailed,
                     .message = report.message});
    return;
  }
  if (!group.suspicion) {
    group.suspicion = Suspicion{.opened_ms = turn.now, .setup = false};
    turn.Info(absl::StrCat("group ", group.name, ": rank ", seat.rank, " (worker ", reporter.worker,
                           ") suspects rank ", report.suspect_rank, ": ", report.message));
  }
  auto& reports = group.suspicion->reports;
  const bool repeated = std::any_of(reports.begin(), reports.end(), [&](const auto& earlier) {
    return earlier.reporter == seat.rank;
  });
  if (repeated) return;
  const bool known =
      report.suspect_rank >= 0 && report.suspect_rank < static_cast<int>(group.members.size());
  reports.push_back(
      {seat.rank, known ? report.suspect_rank : -1, report.request_id, report.message});
}

void DecideSuspicions(Turn& turn) {
  for (auto& [name, group] : turn.state.groups) {
    if (!group.suspicion || !IsDue(turn, group)) continue;
    Blame blame = FindCulprit(turn.state, group);
    EndEpoch(turn, group,
             Verdict{.culprit_rank = blame.rank,
                     .reason = blame.reason,
                     .message = std::move(blame.message)});
  }
}

}  // namespace annulus::coordinator
