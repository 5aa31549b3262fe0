// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/request_recorder.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/recording_sink.h"
#include "tests/unit/metrics/random_timeline.h"

namespace annulus::metrics {
namespace {

using ::testing::DoubleNear;
using ::testing::Pointwise;
using testing_support::RecordingSink;

const std::vector<RecordingSink::Key>& Counters() {
  static const auto* const kKeys = new std::vector<RecordingSink::Key>{
      {MetricId::kStepComputeSeconds, {}},        {MetricId::kStepCommSeconds, {}},
      {MetricId::kStepActiveSeconds, {}},         {MetricId::kExposedCommSeconds, {"inner"}},
      {MetricId::kExposedCommSeconds, {"outer"}}, {MetricId::kPeerWaitSeconds, {"-1"}},
      {MetricId::kPeerWaitSeconds, {"0"}},        {MetricId::kPeerWaitSeconds, {"1"}},
      {MetricId::kPeerWaitSeconds, {"2"}},        {MetricId::kPeerWaitSeconds, {"3"}},
      {MetricId::kCommBytes, {"host", "sent"}},   {MetricId::kCommBytes, {"host", "received"}},
      {MetricId::kCommBytes, {"nccl", "sent"}},   {MetricId::kCommBytes, {"nccl", "received"}},
      {MetricId::kCommBytes, {"other", "sent"}},  {MetricId::kCommBytes, {"other", "received"}}};
  return *kKeys;
}

std::vector<double> Sorted(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values;
}

const TransportNames kTransports = {"nccl", "host", "host"};  // of rank 3 and on: other

TEST(RecordRequest, CountsTheSummary) {
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    const Timeline timeline = RandomTimeline(random);
    const Summary sum = Summarise(timeline);
    RecordingSink sink;
    RecordRequest(sink, timeline, kTransports);
    EXPECT_NEAR(sink.Value(MetricId::kStepComputeSeconds), sum.compute_seconds, 1e-15);
    EXPECT_NEAR(sink.Value(MetricId::kStepCommSeconds), sum.comm_seconds, 1e-15);
    EXPECT_NEAR(sink.Value(MetricId::kStepActiveSeconds), sum.active_seconds, 1e-15);
    EXPECT_NEAR(sink.Value(MetricId::kExposedCommSeconds, {"inner"}), sum.exposed_inner_seconds,
                1e-15);
    EXPECT_NEAR(sink.Value(MetricId::kExposedCommSeconds, {"outer"}), sum.exposed_outer_seconds,
                1e-15);
    double waits = 0;
    for (int peer = -1; peer < 4; ++peer) {
      waits += sink.Value(MetricId::kPeerWaitSeconds, {std::to_string(peer)});
    }
    EXPECT_NEAR(waits, sum.peer_wait_seconds, 1e-15);
    std::map<std::string, double> sent;
    for (const Op& op : timeline.ops) {
      if (op.kind != OpKind::kSend) continue;
      const bool named = op.peer >= 0 && op.peer < 3;
      sent[named ? kTransports[op.peer] : "other"] += static_cast<double>(op.bytes);
    }
    for (const char* name : {"nccl", "host", "other"}) {
      EXPECT_EQ(sink.Value(MetricId::kCommBytes, {name, "sent"}), sent[name]) << name;
    }
    EXPECT_EQ(sent["nccl"] + sent["host"] + sent["other"],
              static_cast<double>(sum.bytes_sent_inner + sum.bytes_sent_outer));
  }
}

// However a request is cut into calls of RecordStep, the totals are those of one call at the end.
TEST(RequestRecorder, TotalsDoNotDependOnHowOftenItIsCalled) {
  std::mt19937 random(5);
  for (int i = 0; i < 500; ++i) {
    const Timeline timeline = RandomTimeline(random);
    RecordingSink whole;
    RecordRequest(whole, timeline, kTransports);

    RecordingSink pieces;
    RequestRecorder recorder(pieces, kTransports);
    for (int64_t settled = 0; settled < kTicks; settled += static_cast<int64_t>(random() % 9)) {
      // What an executor knows by then: the ops that have begun before.
      std::vector<Op> known;
      for (const Op& op : timeline.ops) {
        if (op.start_ns < settled) known.push_back(op);
      }
      recorder.RecordStep(known, settled);
    }
    recorder.Finish(timeline);

    SCOPED_TRACE(i);
    for (const auto& [id, labels] : Counters()) {
      EXPECT_NEAR(pieces.Value(id, labels), whole.Value(id, labels), 1e-15);
    }
    for (const char* level : {"inner", "outer"}) {
      for (const char* phase : {"comm", "compute", "wait"}) {
        const auto seen = Sorted(pieces.Observed(MetricId::kHopDuration, {level, phase}));
        const auto want = Sorted(whole.Observed(MetricId::kHopDuration, {level, phase}));
        EXPECT_THAT(seen, Pointwise(DoubleNear(1e-15), want));
      }
    }
    EXPECT_EQ(pieces.Observed(MetricId::kStepDuration), whole.Observed(MetricId::kStepDuration));
  }
}

TEST(RequestRecorder, CountersAdvanceWhileTheRequestRuns) {
  RecordingSink sink;
  RequestRecorder recorder(sink, kTransports);
  Op compute;
  compute.start_ns = 0;
  compute.end_ns = 1000;
  recorder.RecordStep(std::vector<Op>{compute}, 600);
  EXPECT_NEAR(sink.Value(MetricId::kStepComputeSeconds), 600e-9, 1e-15);
  recorder.RecordStep(std::vector<Op>{compute}, 500);  // time does not run backwards
  EXPECT_NEAR(sink.Value(MetricId::kStepComputeSeconds), 600e-9, 1e-15);
  recorder.RecordStep(std::vector<Op>{compute}, 2000);
  EXPECT_NEAR(sink.Value(MetricId::kStepComputeSeconds), 1000e-9, 1e-15);
}

TEST(RecordRequest, SplitsAHopIntoWhatWasHiddenAndWhatWasNot) {
  Timeline timeline;
  timeline.end_ns = 300;
  Op compute;
  compute.end_ns = 100;
  Op receive;
  receive.kind = OpKind::kReceive;
  receive.level = Level::kOuter;
  receive.start_ns = 40;
  receive.end_ns = 200;
  Op later = compute;
  later.step = 1;
  later.start_ns = 180;
  later.end_ns = 300;
  timeline.ops = {compute, receive, later};
  RecordingSink sink;
  RecordRequest(sink, timeline, kTransports);
  const auto seconds = [](double ns) {
    return ::testing::ElementsAre(DoubleNear(ns * 1e-9, 1e-15));
  };
  EXPECT_THAT(sink.Observed(MetricId::kHopDuration, {"outer", "comm"}), seconds(160));
  EXPECT_THAT(sink.Observed(MetricId::kHopDuration, {"outer", "compute"}), seconds(80));
  EXPECT_THAT(sink.Observed(MetricId::kHopDuration, {"outer", "wait"}), seconds(80));
  EXPECT_THAT(sink.Observed(MetricId::kStepDuration),
              ::testing::ElementsAre(DoubleNear(180e-9, 1e-15), DoubleNear(120e-9, 1e-15)));
}

// Of two peers waited for at once, the one that comes last is to blame.
TEST(RecordRequest, BlamesThePeerThatComesLast) {
  Timeline timeline;
  for (int peer : {4, 2}) {
    Op wait;
    wait.kind = OpKind::kWait;
    wait.peer = peer;
    wait.end_ns = peer == 2 ? 100 : 60;
    timeline.ops.push_back(wait);
  }
  RecordingSink sink;
  RecordRequest(sink, timeline, kTransports);
  EXPECT_NEAR(sink.Value(MetricId::kPeerWaitSeconds, {"2"}), 100e-9, 1e-15);
  EXPECT_EQ(sink.Value(MetricId::kPeerWaitSeconds, {"4"}), 0);
}

}  // namespace
}  // namespace annulus::metrics
