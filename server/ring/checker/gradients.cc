// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/ring/checker/view.h"
#include "server/ring/checker/violation.h"
#include "server/ring/names.h"

namespace annulus::ring {
namespace {

// What happens to an accumulator, in the order in which a step has it (plan.h).
enum class Kind { kSent, kAdded, kReplaced, kSend, kReceive, kCompute };

struct Event {
  int step;
  Kind kind;
  size_t index;  // of the transfer or compute
};

// One accumulator of one rank. Every contribution is followed from where it is computed to the
// transfer that takes it on; since a transfer takes all there is and leaves nothing, none can be
// counted twice, and a contribution is lost only where this class sees it: in a slot that is
// overwritten, left behind, or sent without its tokens.
class Accumulator {
 public:
  Accumulator(const PlanView& view, int rank, absl::string_view slot, const SlotUses& uses)
      : view_(view), rank_(rank), slot_(slot), is_home_(slot == view.plan.gradient_home) {
    for (const size_t i : uses.accumulates) {
      events_.push_back({view.plan.computes[i].step, Kind::kCompute, i});
    }
    for (const size_t i : uses.departures) {
      events_.push_back({view.plan.transfers[i].post_step, Kind::kSend, i});
      events_.push_back({view.plan.transfers[i].due_step, Kind::kSent, i});
    }
    for (const size_t i : uses.arrivals) {
      const Transfer& transfer = view.plan.transfers[i];
      if (transfer.combine == Combine::kAdd) {
        events_.push_back({transfer.due_step, Kind::kAdded, i});
      } else {
        events_.push_back({transfer.post_step, Kind::kReceive, i});
        events_.push_back({transfer.due_step, Kind::kReplaced, i});
      }
    }
    std::sort(events_.begin(), events_.end(), [](const Event& a, const Event& b) {
      return std::tie(a.step, a.kind, a.index) < std::tie(b.step, b.kind, b.index);
    });
  }

  absl::Status Check() {
    for (const Event& event : events_) ANNULUS_RETURN_IF_ERROR(Apply(event));
    if (!is_home_) {
      if (held_.empty()) return absl::OkStatus();
      return Broken("gradient", view_.plan.steps,
                    absl::StrCat("still holds gradients of keys ", ToString(*held_.front().tokens),
                                 " at the end, which never get home"));
    }
    const size_t rank = static_cast<size_t>(rank_);
    return CheckHeldWithin(view_.rank_kv[rank], view_.plan.ranks[rank].kv, view_.plan.steps,
                           "which are another rank's");
  }

 private:
  struct Contribution {
    int set;
    const TokenRanges* tokens;
    bool in_place;  // received straight into the slot, so its rows must be the slot's
  };

  absl::Status Broken(absl::string_view rule, int step, absl::string_view what) const {
    return Violation(rule, rank_, step, slot_, what);
  }

  absl::Status Apply(const Event& event) {
    if (event.kind == Kind::kSent) {
      sending_ = false;
      return absl::OkStatus();
    }
    if (event.kind == Kind::kReplaced) {
      receiving_ = false;
      Hold(view_.transfer_tokens[event.index], view_.plan.transfers[event.index].tokens, true);
      return absl::OkStatus();
    }
    if (sending_) return Broken("overwrite", event.step, "is used while it is being sent");
    if (receiving_) return Broken("overwrite", event.step, "is used while it is being received");
    switch (event.kind) {
      case Kind::kCompute:
        Hold(view_.compute_kv[event.index], view_.plan.computes[event.index].kv, false);
        return absl::OkStatus();
      case Kind::kAdded:
        Hold(view_.transfer_tokens[event.index], view_.plan.transfers[event.index].tokens, false);
        return absl::OkStatus();
      case Kind::kReceive:
        receiving_ = true;
        if (held_.empty()) return absl::OkStatus();
        return Broken("gradient", event.step,
                      absl::StrCat("is replaced while it holds gradients of keys ",
                                   ToString(*held_.front().tokens)));
      default:  // kSend
        return Send(event);
    }
  }

  absl::Status Send(const Event& event) {
    sending_ = true;
    const TokenRanges& tokens = view_.plan.transfers[event.index].tokens;
    ANNULUS_RETURN_IF_ERROR(CheckHeldWithin(view_.transfer_tokens[event.index], tokens, event.step,
                                            "which the transfer leaves behind"));
    held_.clear();
    return absl::OkStatus();
  }

  void Hold(int set, const TokenRanges& tokens, bool in_place) {
    held_.push_back({set, &tokens, in_place});
  }

  absl::Status CheckHeldWithin(int set, const TokenRanges& rows, int step,
                               absl::string_view otherwise) const {
    for (const Contribution& held : held_) {
      if (!view_.keys.IsSubset(held.set, set)) {
        return Broken("gradient", step,
                      absl::StrCat("holds gradients of keys ", ToString(*held.tokens),
                                   ", not all in ", ToString(rows), ", ", otherwise));
      }
      if (held.in_place && *held.tokens != rows) {
        return Broken("gradient", step,
                      absl::StrCat("received ", ToString(*held.tokens), " in place of rows ",
                                   ToString(rows)));
      }
    }
    return absl::OkStatus();
  }

  const PlanView& view_;
  const int rank_;
  const absl::string_view slot_;
  const bool is_home_;
  std::vector<Event> events_;
  std::vector<Contribution> held_;  // since the slot was last emptied
  bool sending_ = false;
  bool receiving_ = false;
};

}  // namespace

absl::Status CheckGradients(const PlanView& view) {
  if (view.plan.direction == Direction::kForward) return absl::OkStatus();
  for (const auto& [place, uses] : view.slots) {
    const bool gradients =
        !uses.accumulates.empty() ||
        (!uses.departures.empty() &&
         view.plan.transfers[uses.departures.front()].payload == Payload::kDkv) ||
        (!uses.arrivals.empty() &&
         view.plan.transfers[uses.arrivals.front()].payload == Payload::kDkv);
    if (!gradients) continue;
    ANNULUS_RETURN_IF_ERROR(Accumulator(view, place.first, place.second, uses).Check());
  }
  return absl::OkStatus();
}

}  // namespace annulus::ring
