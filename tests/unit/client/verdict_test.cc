// SPDX-License-Identifier: Apache-2.0
#include "client/src/verdict.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "server/base/fault_info.h"

namespace annulus::client {
namespace {

RankStatus Rank(int rank, const absl::Status& status) {
  return {rank, "w" + std::to_string(rank), status};
}

absl::Status Lost() {
  return WithFaultInfo(absl::UnavailableError("worker w2 is lost"),
                       {"WORKER_LOST", {{"rank", "2"}, {"worker", "w2"}, {"step", "3"}}});
}

std::string Field(const absl::Status& status, const std::string& key) {
  return GetFaultInfo(status)->metadata[key];
}

TEST(Verdict, AllWellIsWell) {
  EXPECT_TRUE(ChooseVerdict({Rank(0, absl::OkStatus()), Rank(1, absl::OkStatus())}).ok());
  EXPECT_TRUE(ChooseVerdict({}).ok());
}

TEST(Verdict, TheCoordinatorsWordWinsInAnyOrder) {
  std::vector<RankStatus> ranks{Rank(0, absl::CancelledError("")),
                                Rank(1, absl::UnavailableError("Socket closed")), Rank(2, Lost()),
                                Rank(3, absl::DeadlineExceededError("")),
                                Rank(4, absl::InternalError("bug"))};
  std::sort(ranks.begin(), ranks.end(),
            [](const RankStatus& a, const RankStatus& b) { return a.rank < b.rank; });
  do {
    const absl::Status verdict = ChooseVerdict(ranks);
    EXPECT_EQ(GetFaultInfo(verdict)->reason, "WORKER_LOST");
    EXPECT_EQ(Field(verdict, "worker"), "w2");
    EXPECT_EQ(Field(verdict, "step"), "3");
  } while (std::next_permutation(
      ranks.begin(), ranks.end(),
      [](const RankStatus& a, const RankStatus& b) { return a.rank < b.rank; }));
}

TEST(Verdict, ARefusalBeatsWhatItCausedElsewhere) {
  const absl::Status failed =
      WithFaultInfo(absl::UnavailableError("request failed"), {"REQUEST_FAILED", {{"rank", "1"}}});
  const absl::Status verdict =
      ChooseVerdict({Rank(0, failed), Rank(1, absl::ResourceExhaustedError("memory limit")),
                     Rank(2, absl::CancelledError(""))});
  EXPECT_TRUE(absl::IsResourceExhausted(verdict));
  EXPECT_EQ(Field(verdict, "rank"), "1");
  EXPECT_NE(std::string(verdict.message()).find("w1"), std::string::npos);
}

TEST(Verdict, AnUnreachableWorkerIsNamed) {
  const absl::Status verdict =
      ChooseVerdict({Rank(0, absl::OkStatus()), Rank(1, absl::UnavailableError("Socket closed"))});
  EXPECT_EQ(GetFaultInfo(verdict)->reason, "WORKER_UNREACHABLE");
  EXPECT_EQ(Field(verdict, "worker"), "w1");
  EXPECT_TRUE(EndsEpoch(verdict));
}

TEST(Verdict, OnlyAnAnswerOfTheWorkerMeansQuiet) {
  EXPECT_TRUE(KnownQuiet(absl::OkStatus()));
  EXPECT_TRUE(KnownQuiet(Lost()));
  EXPECT_TRUE(KnownQuiet(absl::InvalidArgumentError("shape")));
  EXPECT_FALSE(KnownQuiet(absl::UnavailableError("Socket closed")));
  EXPECT_FALSE(KnownQuiet(absl::CancelledError("")));
  EXPECT_FALSE(KnownQuiet(absl::DeadlineExceededError("")));
}

}  // namespace
}  // namespace annulus::client
