// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/unit/coordinator/harness.h"

namespace annulus::coordinator {
namespace {

using testing::ElementsAre;

// A READY ring of four, and one spare.
class Blame : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"w0", "w1", "w2", "w3", "w4"}) {
      sessions_.push_back(h_.Join(name));
    }
    h_.Ensure("g", 4);
    h_.Settle("g");
    epoch_ = h_.group("g").epoch;
  }

  void Report(int reporter, int suspect, const std::string& message = "no data") {
    h_.Do(FaultReport{.session = sessions_[reporter],
                      .group = "g",
                      .epoch = epoch_,
                      .suspect_rank = suspect,
                      .step = 2,
                      .request_id = "r",
                      .message = message});
  }

  // What the ranks say of request "r" from now on: (step, waiting for, advances).
  void Says(int rank, int step, int waiting_for, uint64_t advances = 0) {
    progress_[rank] = {.group = "g",
                       .epoch = epoch_,
                       .request_id = "r",
                       .step = step,
                       .steps = 4,
                       .waiting_for_rank = waiting_for,
                       .advances = advances};
  }

  // Time until the verdict, the listed ranks (and the spare) beating.
  TimeMs UntilVerdict(const std::vector<int>& beating) {
    const TimeMs start = h_.now;
    while (h_.Seen<SendFault>().empty() && h_.now < start + 10'000) {
      h_.now += Harness::kTickMs;
      for (int rank : beating) {
        h_.Beat(sessions_[rank], progress_.count(rank) != 0 ? std::vector<Progress>{progress_[rank]}
                                                            : std::vector<Progress>{});
      }
      h_.Beat(sessions_[4]);
      h_.Do(Tick{});
    }
    return h_.now - start;
  }

  Verdict TheVerdict() { return h_.Seen<SendFault>().at(0).verdict; }

  Harness h_;
  std::vector<SessionId> sessions_;
  uint64_t epoch_ = 0;
  std::map<int, Progress> progress_;
};

TEST_F(Blame, StoppedRankIsBlamedThoughItsSymptomsReportOthers) {
  // Rank 1 stops; rank 2 waits for it, rank 3 for rank 2 and complains first.
  Says(2, 2, 1);
  Says(3, 3, 2);
  Says(0, 3, -1);
  Report(3, 2);
  Report(2, 1);
  const TimeMs took_ms = UntilVerdict({0, 2, 3});
  EXPECT_LE(took_ms, 1'250);
  EXPECT_EQ(TheVerdict().culprit_rank, 1);
  EXPECT_EQ(TheVerdict().reason, FaultReason::kWorkerSilent);
}

TEST_F(Blame, StuckRankThatBeatsIsFoundAtTheEndOfTheChain) {
  Says(1, 1, -1, 5);  // computes for ever
  Says(2, 2, 1);
  Says(3, 3, 2);
  Says(0, 3, -1, 50);
  Report(3, 2);
  const TimeMs took_ms = UntilVerdict({0, 1, 2, 3});
  EXPECT_LE(took_ms, 400) << "all beat: nobody's lease is about to lapse";
  EXPECT_EQ(TheVerdict().culprit_rank, 1);
  EXPECT_EQ(TheVerdict().reason, FaultReason::kPeerUnreachable);
  EXPECT_EQ(TheVerdict().step, 1);
  EXPECT_EQ(h_.Seen<SendFault>().size(), 4u) << "the blamed one lives and must abort too";
  EXPECT_THAT(h_.MembersOf("g"), ElementsAre("w0", "w2", "w3", "w4")) << "the spare goes first";
}

TEST_F(Blame, InACircleTheOneWithTheLeastProgress) {
  Says(0, 5, 3);
  Says(1, 4, 0);
  Says(2, 2, 1);  // the wire into rank 2 is cut
  Says(3, 3, 2);
  Report(0, 3);
  UntilVerdict({0, 1, 2, 3});
  EXPECT_EQ(TheVerdict().culprit_rank, 2);
}

TEST_F(Blame, TheWaiterPointsWhereTheReportDoesNot) {
  Says(3, 3, 2);
  Says(2, 2, -1);
  Report(3, -1);
  UntilVerdict({0, 1, 2, 3});
  EXPECT_EQ(TheVerdict().culprit_rank, 2);
}

TEST_F(Blame, WithNoHintTheReporterFailedByItself) {
  Report(3, -1, "out of memory");
  UntilVerdict({0, 1, 2, 3});
  EXPECT_EQ(TheVerdict().culprit_rank, 3);
  EXPECT_EQ(TheVerdict().reason, FaultReason::kRequestFailed);
  EXPECT_THAT(TheVerdict().message, testing::HasSubstr("out of memory"));
}

TEST_F(Blame, ARankThatReportsItselfIsBelievedAtOnce) {
  Report(2, 2, "device lost");
  EXPECT_EQ(TheVerdict().culprit_rank, 2);
  EXPECT_EQ(TheVerdict().reason, FaultReason::kRequestFailed);
  EXPECT_EQ(TheVerdict().step, 2);
}

TEST_F(Blame, AStreamThatBreaksDuringTheWaitDecides) {
  Report(2, 1);
  h_.now += 20;
  h_.Do(WorkerGone{sessions_[1]});
  EXPECT_EQ(TheVerdict().culprit_rank, 1);
  EXPECT_EQ(TheVerdict().reason, FaultReason::kWorkerLost);
}

TEST_F(Blame, ReportsOfThePastOrOfStrangersAreCountedAndIgnored) {
  h_.Do(FaultReport{.session = sessions_[0], .group = "g", .epoch = epoch_ - 1, .suspect_rank = 1});
  h_.Do(FaultReport{.session = sessions_[4], .group = "g", .epoch = epoch_, .suspect_rank = 1});
  h_.Do(FaultReport{.session = 999, .group = "g", .epoch = epoch_, .suspect_rank = 1});
  EXPECT_FALSE(h_.group("g").suspicion);
  EXPECT_EQ(h_.Seen<CountMetric>().size(), 2u);
}

TEST_F(Blame, ASuspectThatIsNoRankIsUnknown) {
  Report(0, 77);
  Report(1, -5);
  UntilVerdict({0, 1, 2, 3});
  EXPECT_EQ(TheVerdict().culprit_rank, 0);
}

}  // namespace
}  // namespace annulus::coordinator
