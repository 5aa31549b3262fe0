// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/coordinator/harness.h"

namespace annulus::coordinator {
namespace {

TEST(Membership, HelloIsWelcomedWithTermAndLease) {
  Harness h;
  const SessionId session = h.Join("w0");
  const auto welcomes = h.Seen<SendWelcome>();
  ASSERT_EQ(welcomes.size(), 1u);
  EXPECT_EQ(welcomes[0].session, session);
  EXPECT_EQ(welcomes[0].term, 1000u);
  EXPECT_EQ(welcomes[0].lease_ms, 1000);
  EXPECT_TRUE(h.state.workers.at("w0").live);
}

TEST(Membership, SilenceBeyondTheLeaseLosesTheWorkerAndClosesItsSession) {
  Harness h;
  const SessionId silent = h.Join("w0");
  const SessionId healthy = h.Join("w1");
  h.Pass(950, {healthy});
  EXPECT_TRUE(h.state.workers.at("w0").live);
  h.Pass(100, {healthy});
  EXPECT_FALSE(h.state.workers.at("w0").live);
  EXPECT_TRUE(h.state.workers.at("w1").live);
  const auto closed = h.Seen<CloseSession>();
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].session, silent);
  EXPECT_EQ(closed[0].status.code(), absl::StatusCode::kUnavailable);
}

TEST(Membership, MessagesOfALostSessionChangeNothing) {
  Harness h;
  const SessionId session = h.Join("w0");
  h.Do(WorkerGone{session});
  h.Beat(session);
  h.Do(WorkerGone{session});
  EXPECT_FALSE(h.state.workers.at("w0").live);
  EXPECT_TRUE(h.state.sessions.empty());
}

TEST(Membership, ANewerIncarnationDisplacesTheOlderForGood) {
  Harness h;
  const SessionId old_session = h.Join("w0", "n0", 1);
  h.Join("w0", "n0", 2);
  EXPECT_EQ(h.state.workers.at("w0").identity.incarnation, 2u);
  ASSERT_EQ(h.Seen<CloseSession>().size(), 1u);
  EXPECT_EQ(h.Seen<CloseSession>()[0].session, old_session);
  const SessionId again = h.Join("w0", "n0", 1);
  EXPECT_EQ(h.state.workers.at("w0").identity.incarnation, 2u);
  ASSERT_EQ(h.Seen<CloseSession>().size(), 2u);
  EXPECT_EQ(h.Seen<CloseSession>()[1].session, again);
  EXPECT_EQ(h.Seen<CloseSession>()[1].status.code(), absl::StatusCode::kAlreadyExists);
}

TEST(Membership, ADisplacedIncarnationMayReturnOnceItsSuccessorIsLost) {
  Harness h;
  h.Join("w0", "n0", 1);
  const SessionId successor = h.Join("w0", "n0", 2);
  h.Do(WorkerGone{successor});
  h.Join("w0", "n0", 1);
  EXPECT_EQ(h.state.workers.at("w0").identity.incarnation, 1u);
  const SessionId reconnected = h.Join("w0", "n0", 1);
  EXPECT_EQ(h.state.workers.at("w0").session, reconnected);
}

TEST(Membership, AZombieComesBackAsANewWorker) {
  Harness h;
  const SessionId first = h.Join("w0", "n0", 7);
  h.Ensure("g", 1);
  h.Settle("g");
  h.Pass(1200, {});
  EXPECT_FALSE(h.state.workers.at("w0").live);
  const SessionId second = h.Join("w0", "n0", 7);
  EXPECT_NE(first, second);
  EXPECT_TRUE(h.state.workers.at("w0").live);
  // Its group forms anew on it, at a higher epoch and on the new session.
  EXPECT_EQ(h.group("g").members[0].session, second);
}

TEST(Membership, TwoHellosOnOneSessionEndIt) {
  Harness h;
  const SessionId session = h.Join("w0");
  h.Do(WorkerHello{session, {.name = "w1", .incarnation = 1, .address = "a", .node = "n"}});
  EXPECT_FALSE(h.state.workers.at("w0").live);
  EXPECT_EQ(h.state.workers.count("w1"), 0u);
  ASSERT_EQ(h.Seen<CloseSession>().size(), 1u);
  EXPECT_EQ(h.Seen<CloseSession>()[0].status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(Membership, ItsOwnPauseCostsNobodyTheLease) {
  Harness h;
  const SessionId session = h.Join("w0");
  h.Pass(200, {session});
  h.now += 5'000;  // this process was stopped
  h.Do(Tick{});
  EXPECT_TRUE(h.state.workers.at("w0").live);
  // The lease goes on from where it stood: silence still counts.
  h.Pass(1'100, {});
  EXPECT_FALSE(h.state.workers.at("w0").live);
}

TEST(Membership, WorkersAreLimitedAndTheLongestLostMakeRoom) {
  Settings settings;
  settings.workers_max = 2;
  Harness h(settings);
  const SessionId first = h.Join("w0");
  h.Join("w1");
  h.Join("w2");
  ASSERT_EQ(h.Seen<CloseSession>().size(), 1u);
  EXPECT_EQ(h.Seen<CloseSession>()[0].status.code(), absl::StatusCode::kResourceExhausted);
  h.Do(WorkerGone{first});
  h.Join("w3");
  EXPECT_EQ(h.state.workers.count("w0"), 0u);
  EXPECT_TRUE(h.state.workers.at("w3").live);
}

TEST(Membership, LostWorkersAreForgottenInTime) {
  Settings settings;
  settings.lost_worker_kept_ms = 500;
  Harness h(settings);
  h.Do(WorkerGone{h.Join("w0")});
  EXPECT_EQ(h.state.workers.count("w0"), 1u);
  h.Pass(600, {});
  EXPECT_EQ(h.state.workers.count("w0"), 0u);
}

}  // namespace
}  // namespace annulus::coordinator
