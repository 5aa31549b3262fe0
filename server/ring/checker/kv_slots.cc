// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/ring/checker/view.h"
#include "server/ring/checker/violation.h"
#include "server/ring/names.h"

namespace annulus::ring {
namespace {

// One KV slot of one rank: what is written to it and when, and every read held against that.
class KvSlot {
 public:
  KvSlot(const PlanView& view, int rank, absl::string_view slot, const SlotUses& uses)
      : view_(view), rank_(rank), slot_(slot), uses_(uses), arrivals_(uses.arrivals) {}

  absl::Status Check() {
    if (slot_ == kOwnSlot) initial_ = view_.rank_kv[static_cast<size_t>(rank_)];
    ANNULUS_RETURN_IF_ERROR(CheckResidents());
    ANNULUS_RETURN_IF_ERROR(CheckArrivals());
    for (const size_t i : uses_.attends) {
      const Compute& compute = view_.plan.computes[i];
      ANNULUS_RETURN_IF_ERROR(CheckRead("is attended", compute.step, compute.step + 1,
                                        view_.compute_kv[i], compute.kv));
    }
    for (const size_t i : uses_.departures) {
      const Transfer& transfer = view_.plan.transfers[i];
      ANNULUS_RETURN_IF_ERROR(CheckRead(absl::StrCat("is sent to rank ", transfer.dst),
                                        transfer.post_step, transfer.due_step,
                                        view_.transfer_tokens[i], transfer.tokens));
    }
    return absl::OkStatus();
  }

 private:
  static constexpr int kNothing = -1;

  absl::Status Broken(absl::string_view rule, int step, absl::string_view what) const {
    return Violation(rule, rank_, step, slot_, what);
  }

  absl::Status CheckResidents() {
    if (uses_.residents.empty()) return absl::OkStatus();
    if (uses_.residents.size() > 1) return Broken("resident", 0, "is kept twice");
    if (slot_ == kOwnSlot) return Broken("resident", 0, "a rank's own KV need not be kept");
    if (view_.plan.direction == Direction::kBackward) {
      initial_ = view_.resident_kv[uses_.residents[0]];
    }
    return absl::OkStatus();
  }

  absl::Status CheckArrivals() {
    std::stable_sort(arrivals_.begin(), arrivals_.end(), [this](size_t a, size_t b) {
      return view_.plan.transfers[a].post_step < view_.plan.transfers[b].post_step;
    });
    for (size_t i = 0; i < arrivals_.size(); ++i) {
      const Transfer& transfer = view_.plan.transfers[arrivals_[i]];
      if (initial_ != kNothing) {
        return Broken(slot_ == kOwnSlot ? "overwrite" : "resident", transfer.post_step,
                      absl::StrCat("must stay as it is, but rank ", transfer.src, " sends to it"));
      }
      if (i > 0 && view_.plan.transfers[arrivals_[i - 1]].due_step > transfer.post_step) {
        return Broken("overwrite", transfer.post_step,
                      absl::StrCat("rank ", transfer.src,
                                   " sends to it while it is being received from rank ",
                                   view_.plan.transfers[arrivals_[i - 1]].src));
      }
    }
    return CheckKept();
  }

  // A forward's resident is what arrived last, row for row.
  absl::Status CheckKept() const {
    if (uses_.residents.empty() || view_.plan.direction == Direction::kBackward) {
      return absl::OkStatus();
    }
    const TokenRanges& kept = view_.plan.resident[uses_.residents[0]].kv;
    if (!arrivals_.empty() && view_.plan.transfers[arrivals_.back()].tokens == kept) {
      return absl::OkStatus();
    }
    return Broken("resident", view_.plan.steps,
                  absl::StrCat("keeps ", ToString(kept), ", which are not its rows at the end"));
  }

  // A read that may happen at any time in [begin, end), of what stands there when `begin` begins.
  absl::Status CheckRead(const std::string& read, int begin, int end, int tokens,
                         const TokenRanges& ranges) const {
    // Arrivals do not overlap, so they are sorted by due step too.
    const auto next = std::partition_point(arrivals_.begin(), arrivals_.end(), [&](size_t i) {
      return view_.plan.transfers[i].due_step <= begin;
    });
    if (next != arrivals_.end() && view_.plan.transfers[*next].post_step < end) {
      const Transfer& transfer = view_.plan.transfers[*next];
      return Broken(
          "overwrite", std::max(begin, transfer.post_step),
          absl::StrCat(read, " in steps ", begin, "..", end - 1, " while rank ", transfer.src,
                       " writes it in steps ", transfer.post_step, "..", transfer.due_step - 1));
    }
    const int content =
        next == arrivals_.begin() ? initial_ : view_.transfer_tokens[*std::prev(next)];
    if (content == kNothing)
      return Broken("content", begin, absl::StrCat(read, " but nothing stands there"));
    if (view_.keys.IsSubset(tokens, content)) return absl::OkStatus();
    return Broken(
        "content", begin,
        absl::StrCat(read, " for keys ", ToString(ranges), ", which it does not all hold"));
  }

  const PlanView& view_;
  const int rank_;
  const absl::string_view slot_;
  const SlotUses& uses_;
  std::vector<size_t> arrivals_;  // by post step
  int initial_ = kNothing;        // set that stands there before step 0
};

bool HoldsGradients(const PlanView& view, absl::string_view slot, const SlotUses& uses) {
  const auto moves_gradients = [&](size_t i) {
    return view.plan.transfers[i].payload == Payload::kDkv;
  };
  return !uses.accumulates.empty() || slot == view.plan.gradient_home ||
         std::any_of(uses.departures.begin(), uses.departures.end(), moves_gradients) ||
         std::any_of(uses.arrivals.begin(), uses.arrivals.end(), moves_gradients);
}

bool HoldsKv(const PlanView& view, absl::string_view slot, const SlotUses& uses) {
  const auto moves_kv = [&](size_t i) { return view.plan.transfers[i].payload == Payload::kKv; };
  return slot == kOwnSlot || !uses.attends.empty() || !uses.residents.empty() ||
         std::any_of(uses.departures.begin(), uses.departures.end(), moves_kv) ||
         std::any_of(uses.arrivals.begin(), uses.arrivals.end(), moves_kv);
}

}  // namespace

absl::Status CheckKvSlots(const PlanView& view) {
  for (const auto& [place, uses] : view.slots) {
    if (!HoldsKv(view, place.second, uses)) continue;
    if (HoldsGradients(view, place.second, uses)) {
      return Violation("shape", place.first, 0, place.second, "holds KV as well as gradients");
    }
    ANNULUS_RETURN_IF_ERROR(KvSlot(view, place.first, place.second, uses).Check());
  }
  return absl::OkStatus();
}

}  // namespace annulus::ring
