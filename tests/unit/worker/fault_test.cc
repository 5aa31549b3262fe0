// SPDX-License-Identifier: Apache-2.0
// What callers are told when a ring breaks, and that nothing hangs or is left behind.

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/ring/planner.h"
#include "server/worker/clock.h"
#include "server/worker/fault_text.h"
#include "tests/support/apart/apart_plugin.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

FaultInfo InfoOf(const absl::Status& status) { return GetFaultInfo(status).value_or(FaultInfo{}); }

// With memory that is the host's, and with devices apart from it.
class FaultTest : public ::testing::TestWithParam<const annulusComputeV1*> {
 protected:
  // A ring in which `absent` never calls Attend.
  void Make(TestRing::Options options, int absent) {
    options.compute = GetParam();
    ring_ = std::make_unique<TestRing>(options);
    absent_ = absent;
    problem_.size = options.size;
    const ring::Plan plan = *ring::MakePlan(SpecOf(problem_, ring::Direction::kForward, false));
    digest_ = ring_->AddPlan(plan);
    tensors_ = std::make_unique<Tensors>(problem_, plan);
    ring_->AddRegion(1, tensors_->memory());
  }

  std::vector<AttendCall> Calls(const std::string& id) {
    return tensors_->Forward(*ring_, digest_, id);
  }

  // Starts the calls of all ranks but the absent one.
  void Start(std::vector<AttendCall> calls) {
    calls_ = std::move(calls);
    answers_.resize(calls_.size());
    for (int rank = 0; rank < ring_->size(); ++rank) {
      if (rank == absent_) continue;
      threads_.emplace_back([this, rank] {
        answers_[static_cast<size_t>(rank)] =
            ring_->engine(rank).Attend(calls_[static_cast<size_t>(rank)]);
      });
    }
  }

  // Until `rank` stands in a wait for `peer`.
  void AwaitWait(int rank, int peer) {
    while (true) {
      for (const Progress& progress : ring_->engine(rank).RunningRequests()) {
        if (progress.waiting_for_rank == peer) return;
      }
      std::this_thread::yield();
    }
  }

  void Join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  const absl::Status& StatusOf(int rank) { return answers_[static_cast<size_t>(rank)].status(); }

  void ExpectWorksAtNextEpoch() {
    ring_->Form(ring_->epoch() + 1);
    tensors_->FillOutputs(0xff);
    for (const auto& answer : ring_->Attend(Calls("after"))) {
      ASSERT_TRUE(answer.ok()) << answer.status();
    }
    EXPECT_LE(tensors_->ForwardError(), 5e-6);
    for (int rank = 0; rank < ring_->size(); ++rank) {
      EXPECT_EQ(ring_->engine(rank).used_bytes(), 0u);
    }
  }

  FaultVerdict Verdict(int culprit, const std::string& reason) const {
    FaultVerdict verdict;
    verdict.group = "g";
    verdict.epoch = ring_->epoch();
    verdict.culprit_rank = culprit;
    verdict.culprit_worker = absl::StrCat("w", culprit);
    verdict.reason = reason;
    verdict.step = 3;
    return verdict;
  }

  Problem problem_;
  std::unique_ptr<TestRing> ring_;
  int absent_ = -1;
  std::string digest_;
  std::unique_ptr<Tensors> tensors_;
  std::vector<AttendCall> calls_;
  std::vector<absl::StatusOr<AttendAnswer>> answers_;
  std::vector<std::thread> threads_;
};

TEST_P(FaultTest, TheVerdictNamesRankWorkerStepPeerAndEpoch) {
  Make({.size = 3, .epoch = 5}, 2);
  Start(Calls("a"));
  AwaitWait(0, 2);
  for (const int rank : {0, 1}) ring_->engine(rank).FaultGroup(Verdict(2, "WORKER_LOST"));
  Join();
  EXPECT_EQ(StatusOf(0).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StatusOf(0).message(),
            "rank 2 (worker w2) was lost at step 3 while rank 0 waited for its KV (group g, epoch "
            "5)");
  const FaultInfo info = InfoOf(StatusOf(0));
  EXPECT_EQ(info.reason, "WORKER_LOST");
  EXPECT_EQ(info.metadata.at("rank"), "2");
  EXPECT_EQ(info.metadata.at("worker"), "w2");
  EXPECT_EQ(info.metadata.at("step"), "3");
  EXPECT_EQ(info.metadata.at("peer"), "2");
  EXPECT_EQ(info.metadata.at("epoch"), "5");
  EXPECT_EQ(InfoOf(StatusOf(1)).metadata.at("rank"), "2");
  // The epoch is over for whoever comes later, too; the verdict is what he is told.
  AttendCall late = Calls("late")[0];
  EXPECT_EQ(InfoOf(ring_->engine(0).Attend(late).status()).reason, "WORKER_LOST");
  ExpectWorksAtNextEpoch();
}

TEST_P(FaultTest, ALostPeerIsNamedWithoutAVerdict) {
  Make({.size = 3}, 1);
  Start(Calls("a"));
  AwaitWait(2, 1);
  ring_->KillEngine(1);
  Join();
  for (const int rank : {0, 2}) {
    EXPECT_EQ(StatusOf(rank).code(), absl::StatusCode::kUnavailable) << StatusOf(rank);
    EXPECT_NE(StatusOf(rank).message().find("rank 1 (worker w1)"), absl::string_view::npos)
        << StatusOf(rank);
  }
  EXPECT_FALSE(ring_->observations().empty());
  for (const FaultObservation& seen : ring_->observations()) {
    EXPECT_EQ(seen.group, "g");
    EXPECT_EQ(seen.request_id, "a");
  }
}

TEST_P(FaultTest, ACancelledCallReturnsThoughItsPeerNeverCame) {
  Make({.size = 2}, 1);
  std::atomic<bool> cancel{false};
  auto calls = Calls("a");
  calls[0].cancelled = [&] { return cancel.load(); };
  Start(calls);
  AwaitWait(0, 1);
  cancel = true;
  Join();
  EXPECT_EQ(StatusOf(0).code(), absl::StatusCode::kCancelled) << StatusOf(0);
  ASSERT_EQ(ring_->observations().size(), 1u);
  EXPECT_EQ(ring_->observations()[0].suspect_rank, 0);
  // The peer that comes too late meets an epoch that is over.
  calls[1].deadline_ns = NowNs() + 5 * kSecondNs;
  EXPECT_EQ(ring_->engine(1).Attend(calls[1]).status().code(), absl::StatusCode::kUnavailable);
  ExpectWorksAtNextEpoch();
}

TEST_P(FaultTest, TheDeadlineHoldsAndNamesWhoWasWaitedFor) {
  Make({.size = 2, .verdict_timeout_seconds = 30}, 1);
  auto calls = Calls("a");
  calls[0].deadline_ns = NowNs() + kSecondNs / 5;
  Start(calls);
  Join();
  EXPECT_LT(NowNs(), calls[0].deadline_ns + kSecondNs);
  EXPECT_EQ(StatusOf(0).code(), absl::StatusCode::kDeadlineExceeded) << StatusOf(0);
  EXPECT_EQ(InfoOf(StatusOf(0)).metadata.at("peer"), "1");
  ExpectWorksAtNextEpoch();
}

TEST_P(FaultTest, WithoutADeadlineTheHopTimeoutHolds) {
  Make({.size = 2, .hop_timeout_seconds = 0.1}, 1);
  auto calls = Calls("a");
  calls[0].deadline_ns = 0;
  Start(calls);
  Join();
  EXPECT_EQ(StatusOf(0).code(), absl::StatusCode::kUnavailable) << StatusOf(0);
  EXPECT_EQ(InfoOf(StatusOf(0)).reason, "HOP_TIMEOUT");
  EXPECT_EQ(InfoOf(StatusOf(0)).metadata.at("rank"), "1");
}

TEST_P(FaultTest, AVerdictThatNeverComesIsNotWaitedForPastTheDeadline) {
  Make({.size = 2, .verdict_timeout_seconds = 30}, 1);
  auto calls = Calls("a");
  calls[0].deadline_ns = NowNs() + kSecondNs / 2;
  Start(calls);
  AwaitWait(0, 1);
  ring_->KillEngine(1);
  Join();
  EXPECT_LT(NowNs(), calls[0].deadline_ns + kSecondNs);
  EXPECT_EQ(StatusOf(0).code(), absl::StatusCode::kUnavailable) << StatusOf(0);
}

TEST_P(FaultTest, MemoryIsGoneOnlyWhenTheRequestIsOver) {
  Make({.size = 2}, 1);
  Start(Calls("a"));
  AwaitWait(0, 1);
  ASSERT_TRUE(ring_->engine(0).RemoveRegion(ring_->session(0), 1).ok());
  ring_->engine(0).CloseSession(ring_->session(0));
  EXPECT_GT(ring_->engine(0).used_bytes(), 0u);
  // The request still runs, on memory that nobody else names any more.
  const auto answer = ring_->engine(1).Attend(calls_[1]);
  Join();
  EXPECT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(StatusOf(0).ok()) << StatusOf(0);
  EXPECT_LE(tensors_->ForwardError(), 5e-6);
  EXPECT_EQ(ring_->engine(0).used_bytes(), 0u);
}

TEST_P(FaultTest, TooManyRequestsAreRefusedNotQueued) {
  Make({.size = 2, .max_concurrent_requests = 1}, 1);
  Start(Calls("a"));
  AwaitWait(0, 1);
  const auto refused = ring_->engine(0).Attend(Calls("b")[0]);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(InfoOf(refused.status()).reason, "TOO_MANY_REQUESTS");
  EXPECT_TRUE(ring_->engine(1).Attend(calls_[1]).ok());
  Join();
  EXPECT_TRUE(StatusOf(0).ok()) << StatusOf(0);
}

TEST_P(FaultTest, ProgressShowsWhoIsWaitedFor) {
  Make({.size = 3}, 1);
  Start(Calls("a"));
  AwaitWait(2, 1);
  const auto running = ring_->engine(2).RunningRequests();
  ASSERT_EQ(running.size(), 1u);
  EXPECT_EQ(running[0].fence.request_id, "a");
  EXPECT_EQ(running[0].steps, 3);
  EXPECT_GT(running[0].advances, 0u);
  EXPECT_TRUE(ring_->engine(1).Attend(calls_[1]).ok());
  Join();
}

TEST_P(FaultTest, APeerWithOtherShapesIsAMismatchNotAHang) {
  Make({.size = 2}, -1);
  Problem other = problem_;
  other.kv_length = 80;
  const ring::Plan plan = *ring::MakePlan(SpecOf(other, ring::Direction::kForward, false));
  Tensors tensors(other, plan);
  const std::string digest = ring_->AddPlan(plan);
  ASSERT_TRUE(
      ring_->engine(1)
          .AddRegion(ring_->session(1), 2, 1, tensors.memory().DupFd(), tensors.memory().bytes())
          .ok());
  auto calls = Calls("a");
  calls[1] = tensors.Forward(*ring_, digest, "a")[1];
  for (auto* ref : {&calls[1].q, &calls[1].k, &calls[1].v, &calls[1].o, &calls[1].lse}) {
    (*ref)->region->region_id = 2;
  }
  Start(calls);
  Join();
  EXPECT_FALSE(StatusOf(0).ok());
  EXPECT_FALSE(StatusOf(1).ok());
  ExpectWorksAtNextEpoch();
}

TEST_P(FaultTest, ReleaseEndsARunningRequest) {
  Make({.size = 2}, 1);
  Start(Calls("a"));
  AwaitWait(0, 1);
  ring_->engine(0).FaultAllGroups("COORDINATOR_LOST");
  Join();
  EXPECT_EQ(StatusOf(0).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(InfoOf(StatusOf(0)).reason, "COORDINATOR_LOST");
  EXPECT_TRUE(ring_->observations().empty()) << "the coordinator knows";
}

INSTANTIATE_TEST_SUITE_P(Devices, FaultTest,
                         ::testing::Values(HostDevice(), testing_support::ApartPlugin()));

TEST(FaultTextTest, SaysWhatIsKnownAndNoMore) {
  FaultVerdict verdict;
  verdict.group = "g";
  verdict.epoch = 2;
  verdict.reason = "RELEASED";
  verdict.message = "bye";
  EXPECT_EQ(VerdictStatus(verdict, {.rank = 1, .step = 4}).message(),
            "the epoch ended (RELEASED) at step 4 while rank 1 computed (group g, epoch 2): bye");
  GroupAssignment group;
  group.group = "g";
  group.epoch = 2;
  const absl::Status unnamed = LocalStatus(absl::StatusCode::kUnavailable, "PEER_UNREACHABLE", 3,
                                           group, {.rank = 1, .step = 4, .peer = 2}, "x");
  EXPECT_EQ(unnamed.message(),
            "rank 3 could not be reached at step 4 while rank 1 waited for rank 2 (group g, epoch "
            "2): x");
}

}  // namespace
}  // namespace annulus::worker::testing
