// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status_macros.h"
#include "server/ring/checker/view.h"
#include "server/ring/checker/violation.h"
#include "server/ring/names.h"
#include "server/ring/plan_limits.h"
#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

absl::Status Between(absl::string_view what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Violation("shape", absl::StrCat(what, " must be ", low, "..", high, ", got ", value));
}

absl::Status SlotName(absl::string_view what, absl::string_view name) {
  bool good = !name.empty() && name.size() <= kMaxSlotName;
  for (const char c : name) {
    good = good &&
           (absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_' || c == '.' || c == '-');
  }
  if (good) return absl::OkStatus();
  return Violation(
      "shape", absl::StrCat(what, " must be 1..", kMaxSlotName, " characters of [a-z0-9_.-], got '",
                            name.substr(0, kMaxSlotName), "'"));
}

absl::Status Ranges(absl::string_view what, const TokenRanges& ranges, int64_t length,
                    bool may_be_empty) {
  if (ranges.empty() && !may_be_empty) {
    return Violation("shape", absl::StrCat(what, " names no token"));
  }
  if (ranges.size() > kMaxRangesPerList) {
    return Violation("shape", absl::StrCat(what, " has ", ranges.size(), " ranges, at most ",
                                           kMaxRangesPerList, " are allowed"));
  }
  for (const TokenRange& range : ranges) {
    const bool bounded = range.begin >= 0 && range.end <= kMaxTokens && range.begin < range.end &&
                         range.stride >= 1 && range.stride <= kMaxTokens;
    if (!bounded || Canonical(range).end > length) {
      return Violation("shape", absl::StrCat(what, " has range ", ToString({range}),
                                             " outside the sequence of ", length, " tokens"));
    }
  }
  return absl::OkStatus();
}

absl::Status Header(const Plan& plan) {
  const int n = plan.context_parallel_size;
  ANNULUS_RETURN_IF_ERROR(Between("context_parallel_size", n, 1, kMaxRanks));
  ANNULUS_RETURN_IF_ERROR(Between("window_size", plan.window_size, 1, n));
  if (n % plan.window_size != 0) {
    return Violation("shape", absl::StrCat("window_size ", plan.window_size,
                                           " does not divide context_parallel_size ", n));
  }
  ANNULUS_RETURN_IF_ERROR(Between("steps", plan.steps, 1, kMaxSteps));
  ANNULUS_RETURN_IF_ERROR(Between("query_length", plan.query_length, 1, kMaxTokens));
  ANNULUS_RETURN_IF_ERROR(Between("kv_length", plan.kv_length, 1, kMaxTokens));
  ANNULUS_RETURN_IF_ERROR(Between("mask.window_left", plan.mask.window_left, -1, kMaxTokens));
  ANNULUS_RETURN_IF_ERROR(
      Between("number of ranks", static_cast<int64_t>(plan.ranks.size()), n, n));
  ANNULUS_RETURN_IF_ERROR(
      Between("number of resident entries", static_cast<int64_t>(plan.resident.size()), 0, n));
  ANNULUS_RETURN_IF_ERROR(
      Between("number of computes", static_cast<int64_t>(plan.computes.size()), 0, kMaxOps));
  ANNULUS_RETURN_IF_ERROR(
      Between("number of transfers", static_cast<int64_t>(plan.transfers.size()), 0, kMaxOps));
  if (plan.direction == Direction::kForward) {
    if (plan.gradient_home.empty()) return absl::OkStatus();
    return Violation("shape", "a forward plan has no gradient_home");
  }
  return SlotName("gradient_home", plan.gradient_home);
}

absl::Status Shards(const Plan& plan) {
  for (size_t i = 0; i < plan.ranks.size(); ++i) {
    const RankShard& shard = plan.ranks[i];
    const std::string at = absl::StrCat("ranks[", i, "]");
    ANNULUS_RETURN_IF_ERROR(Between(absl::StrCat(at, ".rank"), shard.rank, static_cast<int64_t>(i),
                                    static_cast<int64_t>(i)));
    ANNULUS_RETURN_IF_ERROR(Ranges(absl::StrCat(at, ".q"), shard.q, plan.query_length, true));
    ANNULUS_RETURN_IF_ERROR(Ranges(absl::StrCat(at, ".kv"), shard.kv, plan.kv_length, true));
  }
  for (size_t i = 0; i < plan.resident.size(); ++i) {
    const Resident& resident = plan.resident[i];
    const std::string at = absl::StrCat("resident[", i, "]");
    ANNULUS_RETURN_IF_ERROR(
        Between(absl::StrCat(at, ".rank"), resident.rank, 0, plan.context_parallel_size - 1));
    ANNULUS_RETURN_IF_ERROR(SlotName(absl::StrCat(at, ".slot"), resident.slot));
    ANNULUS_RETURN_IF_ERROR(Ranges(absl::StrCat(at, ".kv"), resident.kv, plan.kv_length, false));
  }
  return absl::OkStatus();
}

absl::Status OneCompute(const Plan& plan, const Compute& compute, const std::string& at) {
  ANNULUS_RETURN_IF_ERROR(Between(absl::StrCat(at, ".step"), compute.step, 0, plan.steps - 1));
  ANNULUS_RETURN_IF_ERROR(
      Between(absl::StrCat(at, ".rank"), compute.rank, 0, plan.context_parallel_size - 1));
  ANNULUS_RETURN_IF_ERROR(SlotName(absl::StrCat(at, ".slot"), compute.slot));
  ANNULUS_RETURN_IF_ERROR(Ranges(absl::StrCat(at, ".q"), compute.q, plan.query_length, false));
  ANNULUS_RETURN_IF_ERROR(Ranges(absl::StrCat(at, ".kv"), compute.kv, plan.kv_length, false));
  if (plan.direction == Direction::kBackward) {
    return SlotName(absl::StrCat(at, ".into"), compute.into);
  }
  if (compute.into.empty()) return absl::OkStatus();
  return Violation("shape", absl::StrCat(at, ".into: a forward plan has no gradients"));
}

absl::Status OneTransfer(const Plan& plan, const Transfer& transfer, const std::string& at) {
  const int last = plan.context_parallel_size - 1;
  ANNULUS_RETURN_IF_ERROR(Between(absl::StrCat(at, ".src"), transfer.src, 0, last));
  ANNULUS_RETURN_IF_ERROR(Between(absl::StrCat(at, ".dst"), transfer.dst, 0, last));
  if (transfer.src == transfer.dst) {
    return Violation("shape", absl::StrCat(at, ": rank ", transfer.src, " sends to itself"));
  }
  ANNULUS_RETURN_IF_ERROR(SlotName(absl::StrCat(at, ".src_slot"), transfer.src_slot));
  ANNULUS_RETURN_IF_ERROR(SlotName(absl::StrCat(at, ".dst_slot"), transfer.dst_slot));
  ANNULUS_RETURN_IF_ERROR(
      Between(absl::StrCat(at, ".post_step"), transfer.post_step, 0, plan.steps - 1));
  ANNULUS_RETURN_IF_ERROR(Between(absl::StrCat(at, ".due_step"), transfer.due_step,
                                  transfer.post_step + 1, plan.steps));
  if (transfer.payload == Payload::kDkv && plan.direction == Direction::kForward) {
    return Violation("shape", absl::StrCat(at, ".payload: a forward plan moves no gradients"));
  }
  if (transfer.payload == Payload::kKv && transfer.combine == Combine::kAdd) {
    return Violation("shape", absl::StrCat(at, ".combine: KV replaces, it is never added"));
  }
  return Ranges(absl::StrCat(at, ".tokens"), transfer.tokens, plan.kv_length, false);
}

}  // namespace

absl::Status CheckShape(const Plan& plan) {
  ANNULUS_RETURN_IF_ERROR(Header(plan));
  ANNULUS_RETURN_IF_ERROR(Shards(plan));
  for (size_t i = 0; i < plan.computes.size(); ++i) {
    ANNULUS_RETURN_IF_ERROR(OneCompute(plan, plan.computes[i], absl::StrCat("computes[", i, "]")));
  }
  for (size_t i = 0; i < plan.transfers.size(); ++i) {
    ANNULUS_RETURN_IF_ERROR(
        OneTransfer(plan, plan.transfers[i], absl::StrCat("transfers[", i, "]")));
  }
  return absl::OkStatus();
}

}  // namespace annulus::ring
