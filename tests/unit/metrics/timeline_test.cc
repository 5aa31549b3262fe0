// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/timeline.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/metrics/random_timeline.h"

namespace annulus::metrics {
namespace {

constexpr double kTick = 1e-9;

Op MakeOp(OpKind kind, int step, int64_t start, int64_t end, Level level = Level::kInner,
          uint64_t bytes = 0) {
  Op op;
  op.kind = kind;
  op.step = step;
  op.level = level;
  op.start_ns = start;
  op.end_ns = end;
  op.bytes = bytes;
  return op;
}

// ---- the slow twin: one nanosecond at a time, straight from the definitions ----

bool During(const Op& op, int64_t tick) { return op.start_ns <= tick && tick < op.end_ns; }

template <typename Predicate>
bool Any(const Timeline& timeline, int64_t tick, Predicate predicate) {
  return std::any_of(timeline.ops.begin(), timeline.ops.end(),
                     [&](const Op& op) { return During(op, tick) && predicate(op); });
}

bool Transfers(const Op& op) { return op.kind == OpKind::kSend || op.kind == OpKind::kReceive; }
bool Computes(const Op& op) {
  return !Transfers(op) && op.kind != OpKind::kWait && op.kind != OpKind::kCopy;
}

Summary SlowSummary(const Timeline& timeline) {
  Summary sum;
  sum.wall_seconds = kTick * static_cast<double>(timeline.end_ns - timeline.start_ns);
  for (int64_t t = -1; t <= kTicks; ++t) {
    const bool compute = Any(timeline, t, Computes);
    const bool comm = Any(timeline, t, Transfers);
    const bool outer =
        Any(timeline, t, [](const Op& op) { return Transfers(op) && op.level == Level::kOuter; });
    const bool wait = Any(timeline, t, [](const Op& op) { return op.kind == OpKind::kWait; });
    sum.compute_seconds += compute ? kTick : 0;
    sum.comm_seconds += comm ? kTick : 0;
    sum.active_seconds += compute || comm ? kTick : 0;
    sum.exposed_outer_seconds += outer && !compute ? kTick : 0;
    sum.exposed_inner_seconds += comm && !outer && !compute ? kTick : 0;
    sum.peer_wait_seconds += wait && !comm && !compute ? kTick : 0;
  }
  sum.exposed_seconds = sum.active_seconds - sum.compute_seconds;
  for (const Op& op : timeline.ops) {
    if (op.kind == OpKind::kSend && op.level == Level::kInner) sum.bytes_sent_inner += op.bytes;
    if (op.kind == OpKind::kSend && op.level == Level::kOuter) sum.bytes_sent_outer += op.bytes;
  }
  return sum;
}

std::vector<StepSummary> SlowSteps(const Timeline& timeline) {
  std::vector<StepSummary> result(kSteps);
  for (int s = 0; s < kSteps; ++s) result[static_cast<size_t>(s)].step = s;
  for (int64_t t = -1; t <= kTicks; ++t) {
    // The step of t is the last whose first op, or a later step's, has started.
    int step = -1;
    for (const Op& op : timeline.ops) {
      if (op.step < kSteps && op.start_ns <= t) step = std::max(step, op.step);
    }
    if (step < 0) continue;
    const bool compute = Any(timeline, t, Computes);
    const bool comm = Any(timeline, t, Transfers);
    StepSummary& sum = result[static_cast<size_t>(step)];
    sum.compute_seconds += compute ? kTick : 0;
    sum.comm_seconds += comm ? kTick : 0;
    sum.exposed_seconds += comm && !compute ? kTick : 0;
  }
  return result;
}

TEST(Summarise, AgreesWithItsSlowTwin) {
  std::mt19937 random(7);
  for (int i = 0; i < 3000; ++i) {
    const Timeline timeline = RandomTimeline(random);
    const Summary fast = Summarise(timeline);
    const Summary slow = SlowSummary(timeline);
    SCOPED_TRACE(i);
    ASSERT_NEAR(fast.wall_seconds, slow.wall_seconds, 1e-15);
    ASSERT_NEAR(fast.compute_seconds, slow.compute_seconds, 1e-15);
    ASSERT_NEAR(fast.comm_seconds, slow.comm_seconds, 1e-15);
    ASSERT_NEAR(fast.active_seconds, slow.active_seconds, 1e-15);
    ASSERT_NEAR(fast.exposed_seconds, slow.exposed_seconds, 1e-15);
    ASSERT_NEAR(fast.exposed_inner_seconds, slow.exposed_inner_seconds, 1e-15);
    ASSERT_NEAR(fast.exposed_outer_seconds, slow.exposed_outer_seconds, 1e-15);
    ASSERT_NEAR(fast.peer_wait_seconds, slow.peer_wait_seconds, 1e-15);
    ASSERT_EQ(fast.bytes_sent_inner, slow.bytes_sent_inner);
    ASSERT_EQ(fast.bytes_sent_outer, slow.bytes_sent_outer);
  }
}

TEST(SummariseSteps, AgreesWithItsSlowTwin) {
  std::mt19937 random(11);
  for (int i = 0; i < 3000; ++i) {
    const Timeline timeline = RandomTimeline(random);
    const std::vector<StepSummary> fast = SummariseSteps(timeline, kSteps);
    const std::vector<StepSummary> slow = SlowSteps(timeline);
    ASSERT_EQ(fast.size(), slow.size());
    for (size_t s = 0; s < slow.size(); ++s) {
      SCOPED_TRACE(testing::Message() << "timeline " << i << " step " << s);
      ASSERT_EQ(fast[s].step, slow[s].step);
      ASSERT_NEAR(fast[s].compute_seconds, slow[s].compute_seconds, 1e-15);
      ASSERT_NEAR(fast[s].comm_seconds, slow[s].comm_seconds, 1e-15);
      ASSERT_NEAR(fast[s].exposed_seconds, slow[s].exposed_seconds, 1e-15);
    }
  }
}

TEST(Summarise, TellsHiddenFromExposed) {
  Timeline timeline;
  timeline.end_ns = 1000;
  timeline.ops = {
      MakeOp(OpKind::kCompute, 0, 0, 400),
      MakeOp(OpKind::kReceive, 0, 100, 500),                 // 300 hidden, 100 exposed: inner
      MakeOp(OpKind::kSend, 0, 450, 600, Level::kOuter, 9),  // from 450 on exposed: outer
      MakeOp(OpKind::kWait, 0, 400, 700),                    // 100 of it without a byte moving
      MakeOp(OpKind::kCompute, 1, 700, 900),
  };
  const Summary sum = Summarise(timeline);
  EXPECT_NEAR(sum.compute_seconds, 600e-9, 1e-15);
  EXPECT_NEAR(sum.comm_seconds, 500e-9, 1e-15);
  EXPECT_NEAR(sum.exposed_inner_seconds, 50e-9, 1e-15);
  EXPECT_NEAR(sum.exposed_outer_seconds, 150e-9, 1e-15);
  EXPECT_NEAR(sum.peer_wait_seconds, 100e-9, 1e-15);
  EXPECT_NEAR(sum.overlap(), 0.6, 1e-9);
  EXPECT_EQ(sum.bytes_sent_outer, 9u);
}

TEST(Summarise, NothingCommunicatedIsAllHidden) {
  EXPECT_EQ(Summarise(Timeline()).overlap(), 1.0);
  Timeline timeline;
  timeline.ops = {MakeOp(OpKind::kCompute, 0, 0, 10)};
  EXPECT_EQ(Summarise(timeline).overlap(), 1.0);
}

TEST(SummariseSteps, ATransferCountsInEveryStepItOverlaps) {
  Timeline timeline;
  timeline.ops = {
      MakeOp(OpKind::kCompute, 0, 0, 100),
      MakeOp(OpKind::kCompute, 1, 100, 150),
      MakeOp(OpKind::kCompute, 2, 160, 200),
      MakeOp(OpKind::kReceive, 0, 50, 250, Level::kOuter),
  };
  const std::vector<StepSummary> steps = SummariseSteps(timeline, 3);
  EXPECT_NEAR(steps[0].comm_seconds, 50e-9, 1e-15);
  EXPECT_NEAR(steps[1].comm_seconds, 60e-9, 1e-15);
  EXPECT_NEAR(steps[1].exposed_seconds, 10e-9, 1e-15);
  EXPECT_NEAR(steps[2].comm_seconds, 90e-9, 1e-15);
  EXPECT_NEAR(steps[2].exposed_seconds, 50e-9, 1e-15);
  EXPECT_TRUE(SummariseSteps(timeline, 0).empty());
}

}  // namespace
}  // namespace annulus::metrics
