// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/ring/checker/view.h"
#include "server/ring/checker/violation.h"
#include "server/ring/mask.h"
#include "server/ring/names.h"

namespace annulus::ring {
namespace {

constexpr int64_t kMaxColourPairs = int64_t{1} << 24;
constexpr int64_t kMaxTileVisits = int64_t{1} << 28;

absl::Status OwnedOnce(const TokenSets& sets, const std::vector<int>& owned, const char* kind) {
  std::vector<int> owner(static_cast<size_t>(sets.colour_count()), -1);
  for (size_t rank = 0; rank < owned.size(); ++rank) {
    for (const int colour : sets.Colours(owned[rank])) {
      int& holder = owner[static_cast<size_t>(colour)];
      if (holder >= 0) {
        return Violation("ownership",
                         absl::StrCat(kind, " ", ToString(sets.Tokens(colour)), " belong to rank ",
                                      holder, " and to rank ", rank));
      }
      holder = static_cast<int>(rank);
    }
  }
  for (int colour = 0; colour < sets.colour_count(); ++colour) {
    if (owner[static_cast<size_t>(colour)] < 0) {
      return Violation("ownership", absl::StrCat(kind, " ", ToString(sets.Tokens(colour)),
                                                 " belong to no rank"));
    }
  }
  return absl::OkStatus();
}

// Which compute covers each pair of query colour and key colour.
class CoverageTable {
 public:
  explicit CoverageTable(const PlanView& view)
      : view_(view),
        offset_(CausalOffset(view.plan.query_length, view.plan.kv_length)),
        width_(static_cast<size_t>(view.keys.colour_count())),
        covered_by_(static_cast<size_t>(view.queries.colour_count()) * width_, kNobody) {}

  absl::Status Enter(size_t index) {
    const Compute& compute = view_.plan.computes[index];
    ANNULUS_RETURN_IF_ERROR(CheckCase(compute));
    for (const int query : view_.queries.Colours(view_.compute_q[index])) {
      for (const int key : view_.keys.Colours(view_.compute_kv[index])) {
        ANNULUS_RETURN_IF_ERROR(Spend(1));
        int32_t& holder =
            covered_by_[static_cast<size_t>(query) * width_ + static_cast<size_t>(key)];
        if (holder != kNobody) ANNULUS_RETURN_IF_ERROR(CheckTwice(query, key, holder, compute));
        holder = static_cast<int32_t>(index);
      }
    }
    return absl::OkStatus();
  }

  // No visible pair is left out.
  absl::Status CheckComplete() {
    for (int query = 0; query < view_.queries.colour_count(); ++query) {
      for (int key = 0; key < view_.keys.colour_count(); ++key) {
        if (covered_by_[static_cast<size_t>(query) * width_ + static_cast<size_t>(key)] != kNobody)
          continue;
        ANNULUS_RETURN_IF_ERROR(SpendOnTile(view_.queries.Tokens(query), view_.keys.Tokens(key)));
        if (CaseOf(view_.plan.mask, offset_, view_.queries.Tokens(query), view_.keys.Tokens(key)) ==
            MaskCase::kEmpty)
          continue;
        return Violation("coverage",
                         absl::StrCat("queries ", ToString(view_.queries.Tokens(query)),
                                      " never attend keys ", ToString(view_.keys.Tokens(key))));
      }
    }
    return absl::OkStatus();
  }

 private:
  static constexpr int32_t kNobody = -1;

  absl::Status Spend(int64_t visits) {
    visits_ += visits;
    if (visits_ <= kMaxTileVisits) return absl::OkStatus();
    return Violation("complexity", "too many tiles");
  }
  absl::Status SpendOnTile(const TokenRanges& q, const TokenRanges& kv) {
    return Spend(static_cast<int64_t>(q.size() * kv.size()));
  }

  absl::Status CheckCase(const Compute& compute) {
    ANNULUS_RETURN_IF_ERROR(SpendOnTile(compute.q, compute.kv));
    const MaskCase actual = CaseOf(view_.plan.mask, offset_, compute.q, compute.kv);
    if (actual == compute.mask_case && actual != MaskCase::kEmpty) return absl::OkStatus();
    return Violation(
        "mask-case", compute.rank, compute.step, compute.slot,
        absl::StrCat("queries ", ToString(compute.q), " over keys ", ToString(compute.kv), " are ",
                     Name(actual), ", the plan says ", Name(compute.mask_case)));
  }

  absl::Status CheckTwice(int query, int key, int32_t first, const Compute& second) {
    const TokenRanges& q = view_.queries.Tokens(query);
    const TokenRanges& kv = view_.keys.Tokens(key);
    ANNULUS_RETURN_IF_ERROR(SpendOnTile(q, kv));
    if (CaseOf(view_.plan.mask, offset_, q, kv) == MaskCase::kEmpty) return absl::OkStatus();
    const Compute& other = view_.plan.computes[static_cast<size_t>(first)];
    return Violation("coverage", second.rank, second.step, second.slot,
                     absl::StrCat("queries ", ToString(q), " attend keys ", ToString(kv),
                                  " again, after step ", other.step));
  }

  const PlanView& view_;
  const int64_t offset_;
  const size_t width_;
  std::vector<int32_t> covered_by_;
  int64_t visits_ = 0;
};

}  // namespace

absl::Status CheckOwnership(const PlanView& view) {
  ANNULUS_RETURN_IF_ERROR(OwnedOnce(view.queries, view.rank_q, "queries"));
  ANNULUS_RETURN_IF_ERROR(OwnedOnce(view.keys, view.rank_kv, "keys"));
  for (size_t i = 0; i < view.plan.computes.size(); ++i) {
    const Compute& compute = view.plan.computes[i];
    if (!view.queries.IsSubset(view.compute_q[i], view.rank_q[static_cast<size_t>(compute.rank)])) {
      return Violation(
          "query-owner", compute.rank, compute.step, compute.slot,
          absl::StrCat("computes queries ", ToString(compute.q), ", not all of them its own"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCoverage(const PlanView& view) {
  const int64_t pairs = int64_t{view.queries.colour_count()} * view.keys.colour_count();
  if (pairs > kMaxColourPairs) {
    return Violation("complexity",
                     absl::StrCat("ranges make ", pairs, " kinds of (query, key) pair, at most ",
                                  kMaxColourPairs, " are checked"));
  }
  CoverageTable table(view);
  for (size_t i = 0; i < view.plan.computes.size(); ++i) ANNULUS_RETURN_IF_ERROR(table.Enter(i));
  return table.CheckComplete();
}

}  // namespace annulus::ring
