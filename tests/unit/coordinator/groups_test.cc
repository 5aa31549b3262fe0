// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/base/fault_info.h"
#include "tests/unit/coordinator/harness.h"

namespace annulus::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string MessageOf(const std::optional<AnswerCall>& answer) {
  return answer ? std::string(answer->status.message()) : "no answer";
}

TEST(Groups, FormInStepsAndAnswerWhoWaits) {
  Harness h;
  const CallId call = h.Ensure("g", 2);
  EXPECT_EQ(h.group("g").phase, GroupPhase::kWaiting);
  h.Join("w1", "n1");
  const SessionId w0 = h.Join("w0", "n0");
  ASSERT_EQ(h.group("g").phase, GroupPhase::kPreparing);
  EXPECT_THAT(h.MembersOf("g"), ElementsAre("w0", "w1"));
  const uint64_t epoch = h.group("g").epoch;
  EXPECT_GT(epoch, h.state.term);
  ASSERT_EQ(h.Seen<SendPrepare>().size(), 2u);
  EXPECT_EQ(h.Seen<SendPrepare>()[0].rank, 0);
  EXPECT_EQ(h.Seen<SendPrepare>()[0].session, w0);
  EXPECT_FALSE(h.AnswerTo(call));
  h.Settle("g");
  const auto connects = h.Seen<SendConnect>();
  ASSERT_EQ(connects.size(), 2u);
  EXPECT_THAT(*connects[0].handles, ElementsAre("handle-w0", "handle-w1"));
  ASSERT_TRUE(h.AnswerTo(call));
  EXPECT_TRUE(h.AnswerTo(call)->status.ok());
  EXPECT_EQ(h.AnswerTo(call)->group->epoch, epoch);
  EXPECT_EQ(h.AnswerTo(call)->group->options.window_size, 2);
}

TEST(Groups, ReadyGroupAnswersAtOnceAndOptionsMustMatch) {
  Harness h;
  h.Join("w0");
  h.Join("w1");
  h.Ensure("g", 2, 2);
  h.Settle("g");
  EXPECT_TRUE(h.AnswerTo(h.Ensure("g", 2))->status.ok());
  const auto differs = h.AnswerTo(h.Ensure("g", 2, 1));
  ASSERT_TRUE(differs);
  EXPECT_EQ(differs->status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(differs), HasSubstr("size 2, window 2"));
  EXPECT_THAT(MessageOf(differs), HasSubstr("size 2, window 1"));
}

TEST(Groups, BadOptionsSayWhatWasExpectedAndGot) {
  Harness h;
  const auto window = h.AnswerTo(h.Ensure("g", 12, 5));
  EXPECT_EQ(window->status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(window), HasSubstr("1, 2, 3, 4, 6, 12"));
  EXPECT_THAT(MessageOf(window), HasSubstr("got 5"));
  EXPECT_THAT(MessageOf(h.AnswerTo(h.Ensure("g", 0))), HasSubstr("got 0"));
  EXPECT_THAT(MessageOf(h.AnswerTo(h.Ensure("g", 5000))), HasSubstr("4096"));
  EXPECT_THAT(MessageOf(h.AnswerTo(h.Ensure("Bad Name", 1))), HasSubstr("Bad Name"));
  EXPECT_THAT(MessageOf(h.AnswerTo(h.Ensure("g", 2, 0, 0, 1000, {"w0", "w0"}))),
              HasSubstr("'w0' twice"));
  EXPECT_THAT(MessageOf(h.AnswerTo(h.Ensure("g", 2, 0, 0, 1000, {"w0"}))), HasSubstr("got 1"));
  EXPECT_TRUE(h.state.groups.empty());
}

TEST(Groups, NotEnoughWorkersSaysHaveAndNeedAndLeavesNothingBehind) {
  Harness h;
  const SessionId w0 = h.Join("w0");
  const CallId call = h.Ensure("g", 3, 0, 0, 500);
  h.Pass(600, {w0});
  const auto answer = h.AnswerTo(call);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetFaultInfo(answer->status)->reason, "NOT_ENOUGH_WORKERS");
  EXPECT_THAT(MessageOf(answer), HasSubstr("needs 3 live workers, got 1"));
  EXPECT_TRUE(h.state.groups.empty());
}

TEST(Groups, ExplicitMembersSitAsAskedOrAreNamedAsMissing) {
  Harness h;
  const SessionId w0 = h.Join("w0");
  const CallId call = h.Ensure("g", 2, 0, 0, 300, {"w9", "w0"});
  h.Pass(400, {w0});
  EXPECT_THAT(MessageOf(h.AnswerTo(call)), HasSubstr("missing: w9"));
  const SessionId w9 = h.Join("w9");
  h.Ensure("g", 2, 0, 0, 300, {"w9", "w0"});
  EXPECT_THAT(h.MembersOf("g"), ElementsAre("w9", "w0"));
  h.Pass(100, {w0, w9});
}

TEST(Groups, LossOfAMemberEndsTheEpochAndASpareTakesTheSeat) {
  Harness h;
  const SessionId w0 = h.Join("w0");
  const SessionId w1 = h.Join("w1");
  h.Join("w2");
  h.Ensure("g", 2);
  h.Settle("g");
  const uint64_t epoch = h.group("g").epoch;
  h.Beat(w1, {{.group = "g", .epoch = epoch, .request_id = "r", .step = 3, .steps = 8}});
  h.Do(WorkerGone{w1});
  const auto faults = h.Seen<SendFault>();
  ASSERT_EQ(faults.size(), 1u) << "only survivors are told";
  EXPECT_EQ(faults[0].session, w0);
  EXPECT_EQ(faults[0].verdict.culprit_rank, 1);
  EXPECT_EQ(faults[0].verdict.culprit_worker, "w1");
  EXPECT_EQ(faults[0].verdict.reason, FaultReason::kWorkerLost);
  EXPECT_EQ(faults[0].verdict.step, 3);
  EXPECT_EQ(h.group("g").phase, GroupPhase::kPreparing);
  EXPECT_GT(h.group("g").epoch, epoch);
  EXPECT_THAT(h.MembersOf("g"), ElementsAre("w0", "w2"));
}

TEST(Groups, LossWhileFormingStartsAnew) {
  Harness h;
  h.Join("w0");
  const SessionId w1 = h.Join("w1");
  h.Join("w2");
  const CallId call = h.Ensure("g", 2);
  const uint64_t epoch = h.group("g").epoch;
  h.Do(GroupPrepared{w1, "g", epoch, "h", ""});
  h.Do(WorkerGone{w1});
  EXPECT_GT(h.group("g").epoch, epoch);
  h.Do(GroupPrepared{w1, "g", epoch, "h", ""});  // of the past
  h.Settle("g");
  EXPECT_TRUE(h.AnswerTo(call)->status.ok());
}

TEST(Groups, AStreamThatEndsAfterSilenceMeansSilent) {
  Harness h;
  const SessionId w0 = h.Join("w0");
  const SessionId w1 = h.Join("w1");
  h.Ensure("g", 2);
  h.Settle("g");
  h.Pass(700, {w0});
  h.Do(WorkerGone{w1});
  ASSERT_EQ(h.Seen<SendFault>().size(), 1u);
  EXPECT_EQ(h.Seen<SendFault>()[0].verdict.reason, FaultReason::kWorkerSilent);
}

TEST(Groups, SetupThatTakesTooLongNamesWhoDidNotAnswer) {
  Settings settings;
  settings.prepare_timeout_ms = 400;
  Harness h(settings);
  const SessionId w0 = h.Join("w0");
  const SessionId w1 = h.Join("w1");
  const SessionId w2 = h.Join("w2");
  h.Ensure("g", 2);
  h.Do(GroupPrepared{w0, "g", h.group("g").epoch, "h", ""});
  h.Pass(450, {w0, w1, w2});
  ASSERT_FALSE(h.Seen<SendFault>().empty());
  EXPECT_EQ(h.Seen<SendFault>()[0].verdict.reason, FaultReason::kSetupFailed);
  EXPECT_EQ(h.Seen<SendFault>()[0].verdict.culprit_worker, "w1");
  EXPECT_THAT(h.MembersOf("g"), ElementsAre("w0", "w2")) << "the blamed worker waits its turn";
  EXPECT_EQ(h.Seen<SendRelease>().size(), 1u) << "and lets go of the old epoch";
}

TEST(Groups, FailuresInARowBackOff) {
  Harness h;
  const SessionId w0 = h.Join("w0");
  h.Ensure("g", 1, 0, 0, 600'000);
  TimeMs longest_ms = 0;
  for (int failure = 0; failure < 12; ++failure) {
    const TimeMs failed_ms = h.now;
    h.Do(GroupPrepared{w0, "g", h.group("g").epoch, "", "no memory"});
    while (h.group("g").phase == GroupPhase::kWaiting) h.Pass(50, {w0});
    longest_ms = std::max(longest_ms, h.now - failed_ms);
  }
  EXPECT_GE(longest_ms, 5'000);
  EXPECT_LE(longest_ms, 5'050);
}

TEST(Groups, DeleteReleasesAnswersAndNeverReusesAnEpoch) {
  Harness h;
  h.Join("w0");
  h.Ensure("g", 1);
  h.Settle("g");
  const uint64_t epoch = h.group("g").epoch;
  const CallId waiting = h.Ensure("g", 1, 0, epoch);
  h.Do(DeleteGroup{"g"});
  h.Do(DeleteGroup{"g"});
  EXPECT_EQ(h.AnswerTo(waiting)->status.code(), absl::StatusCode::kAborted);
  ASSERT_EQ(h.Seen<SendRelease>().size(), 1u);
  EXPECT_EQ(h.Seen<SendRelease>()[0].epoch, epoch);
  EXPECT_TRUE(h.state.workers.at("w0").groups.empty());
  h.Ensure("g", 1);
  EXPECT_GT(h.group("g").epoch, epoch);
}

TEST(Groups, WorkersOfOtherGroupsAreChosenLast) {
  Harness h;
  for (const char* name : {"w0", "w1", "w2", "w3"}) h.Join(name);
  h.Ensure("a", 2);
  h.Ensure("b", 2);
  h.Ensure("c", 3);
  EXPECT_THAT(h.MembersOf("a"), ElementsAre("w0", "w1"));
  EXPECT_THAT(h.MembersOf("b"), ElementsAre("w2", "w3"));
  EXPECT_THAT(h.MembersOf("c"), ElementsAre("w0", "w1", "w2"));
}

TEST(Groups, AfterEpochWaitsForTheNextOne) {
  Harness h;
  const SessionId w0 = h.Join("w0");
  h.Ensure("g", 1);
  h.Settle("g");
  const uint64_t epoch = h.group("g").epoch;
  const CallId next = h.Ensure("g", 1, 0, epoch);
  EXPECT_FALSE(h.AnswerTo(next));
  h.Do(FaultReport{.session = w0, .group = "g", .epoch = epoch, .suspect_rank = 0, .message = "x"});
  h.Settle("g");
  ASSERT_TRUE(h.AnswerTo(next));
  EXPECT_GT(h.AnswerTo(next)->group->epoch, epoch);
  const CallId never = h.Ensure("g", 1, 0, h.group("g").epoch, 300);
  h.Pass(400, {w0});
  EXPECT_EQ(GetFaultInfo(h.AnswerTo(never)->status)->reason, "GROUP_NOT_READY");
}

TEST(Groups, CancelledCallsAreForgottenAndTheirUnbornGroupToo) {
  Harness h;
  const CallId call = h.Ensure("g", 2);
  h.Do(CallCancelled{call});
  EXPECT_TRUE(h.state.calls.empty());
  EXPECT_TRUE(h.state.groups.empty());
  EXPECT_FALSE(h.AnswerTo(call));
}

TEST(Groups, GroupsAndCallsAreLimited) {
  Settings settings;
  settings.groups_max = 2;
  settings.calls_max = 2;
  Harness h(settings);
  h.Ensure("a", 1);
  h.Ensure("b", 1);
  EXPECT_EQ(h.AnswerTo(h.Ensure("b", 1))->status.code(), absl::StatusCode::kResourceExhausted);
  h.Do(CallCancelled{2});
  h.Ensure("d", 1);
  EXPECT_EQ(h.AnswerTo(h.Ensure("e", 1))->status.code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace annulus::coordinator
