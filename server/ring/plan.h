// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace annulus::ring {

// Tokens begin, begin + stride, ... below end. stride is 1 except in the striped layout.
// In JSON [begin, end], or [begin, end, stride] where the stride is not 1.
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t stride = 1;
  int64_t count() const { return end <= begin ? 0 : (end - begin + stride - 1) / stride; }
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const TokenRange& range) {
    return H::combine(std::move(state), range.begin, range.end, range.stride);
  }
};
using TokenRanges = std::vector<TokenRange>;
int64_t TokenCount(const TokenRanges& ranges);

enum class Algorithm { kRing, kDoubleRing };
enum class Direction { kForward, kBackward };
enum class Layout { kContiguous, kZigzag, kStriped };
enum class MaskKind { kFull, kCausal };
enum class MaskCase { kEmpty, kFull, kPartial };
enum class Payload { kKv, kDkv };
enum class Combine { kReplace, kAdd };
// Which ring a hop belongs to; a plain ring has only kInner. Which wire it takes is the topology's.
enum class Level { kInner, kOuter };

struct Mask {
  MaskKind kind = MaskKind::kFull;
  int64_t window_left = -1;  // sliding window; -1: none
  friend bool operator==(const Mask&, const Mask&) = default;
};

// What is to be planned. Query i sees key j, under kCausal, when j <= i + (kv_length -
// query_length).
struct Spec {
  Direction direction = Direction::kForward;
  int64_t query_length = 0;
  int64_t kv_length = 0;
  int context_parallel_size = 1;  // N
  int window_size = 0;            // w, divides N; 0 stands for N (a plain ring)
  Mask mask;
  Layout layout = Layout::kZigzag;
  // Forward: keep the KV held last, for a backward to start from. Backward: start from it; when
  // false the backward fetches it again in a first step.
  bool keep_resident = false;
  friend bool operator==(const Spec&, const Spec&) = default;
};

struct RankShard {
  int rank = 0;
  TokenRanges q;
  TokenRanges kv;
  friend bool operator==(const RankShard&, const RankShard&) = default;
};

// KV that a rank keeps after a forward or starts a backward with. Forward: `slot` is a receive slot
// of that plan, `kv` are its rows after the last step, in their order, and it must stay intact
// until the backward has ended. Backward: `slot` ("res") stands filled with those same rows when
// step 0 begins and is never written. Ranks that keep nothing have no entry.
struct Resident {
  int rank = 0;
  std::string slot;
  TokenRanges kv;
  friend bool operator==(const Resident&, const Resident&) = default;
};

// Rank attends q (a part of its own queries) over kv (a part of what stands in `slot`) in `step`.
// mask_case holds for the whole rectangle q x kv and is never kEmpty.
struct Compute {
  int step = 0;
  int rank = 0;
  std::string slot;
  TokenRanges q;
  TokenRanges kv;
  MaskCase mask_case = MaskCase::kFull;
  std::string into;  // backward only: the slot that dK, dV are added to
  friend bool operator==(const Compute&, const Compute&) = default;
};

// Posted when step post_step begins, reading src_slot as it stood then; owns dst_slot over
// [post_step, due_step); readable from due_step on (due_step = steps: after the last step).
//
// When step s begins a rank does, in this order: (1) waits for its transfers with due_step s, sent
// and received; (2) zeroes accumulators whose life begins (slots.h); (3) adds what arrived with
// kAdd, in plan order; (4) posts its transfers with post_step s; (5) runs its computes, in plan
// order.
//
// kv: kReplace. dkv: empties src_slot when posted. kAdd lands in staging (slots.h) and touches
// dst_slot only at due_step; kReplace lands in dst_slot, which must be empty. The rows of an
// accumulator are the tokens of the dkv transfer that next empties it; those of `gradient_home`,
// the rank's own kv.
struct Transfer {
  Payload payload = Payload::kKv;
  int src = 0;
  std::string src_slot;
  int dst = 0;
  std::string dst_slot;
  Combine combine = Combine::kReplace;
  int post_step = 0;
  int due_step = 0;
  TokenRanges tokens;  // in the order in which rows lie in the slot and travel
  Level level = Level::kInner;
  friend bool operator==(const Transfer&, const Transfer&) = default;
};

// annulus.plan.v1. Slot "own" holds a rank's own KV and is never written. Every contribution to a
// rank's dK, dV ends in its slot `gradient_home`.
struct Plan {
  std::string digest;  // sha256, lower-case hex, over the canonical JSON without this field
  Algorithm algorithm = Algorithm::kRing;
  Direction direction = Direction::kForward;
  int context_parallel_size = 1;
  int window_size = 1;
  int steps = 1;
  int64_t query_length = 0;
  int64_t kv_length = 0;
  Mask mask;
  Layout layout = Layout::kZigzag;
  std::vector<RankShard> ranks;
  std::vector<Resident> resident;
  std::vector<Compute> computes;
  std::vector<Transfer> transfers;
  std::string gradient_home;
  friend bool operator==(const Plan&, const Plan&) = default;
};

inline constexpr char kOwnSlot[] = "own";

}  // namespace annulus::ring
