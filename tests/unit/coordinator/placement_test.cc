// SPDX-License-Identifier: Apache-2.0
// Groups are formed on what the workers say of their machines.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/base/fault_info.h"
#include "server/ring/topology/presets.h"
#include "tests/unit/coordinator/harness.h"

namespace annulus::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The preset's workers join, the last first.
void JoinAll(Harness& h, const std::vector<ring::WorkerFacts>& workers) {
  SessionId session = 100;
  for (auto facts = workers.rbegin(); facts != workers.rend(); ++facts) {
    h.Do(WorkerHello{session++,
                     {.name = facts->worker,
                      .incarnation = 1,
                      .address = facts->worker + ":1",
                      .node = facts->node,
                      .host_id = facts->host_id,
                      .transport = "host",
                      .facts = *facts}});
  }
}

TEST(Placement, DecidesOnFactsAndTellsMembersCallersAndTheLog) {
  Harness h;
  JoinAll(h, ring::PresetFacts("dgx-h100x4-nics4").value());
  const CallId call = h.Ensure("g", 32, 8);
  const auto prepares = h.Seen<SendPrepare>();
  ASSERT_EQ(prepares.size(), 32u);
  EXPECT_EQ(prepares[9].topology->inner.name, "cuipc");
  EXPECT_EQ(prepares[9].topology->outer.name, "nccl");
  EXPECT_EQ((*prepares[9].roster)[9].name, "n1-1");
  h.Settle("g");
  const auto answer = h.AnswerTo(call);
  ASSERT_TRUE(answer && answer->status.ok());
  EXPECT_EQ(answer->group->topology->seats[9].nic.nic, "mlx5_0");
  int told = 0;
  for (const Log& log : h.Seen<Log>()) {
    told += log.text.find("inside nodes cuipc (one host, every two GPUs joined by NVLink)") !=
            std::string::npos;
  }
  EXPECT_EQ(told, 1);
}

TEST(Placement, ATransportThatCannotBeHadIsRefusedAtOnce) {
  Harness h;
  JoinAll(h, ring::PresetFacts("cpu-4").value());
  const CallId call = 77;
  h.Do(EnsureGroup{call, "g", {.size = 4, .inner_transport = "nccl"}, 0, h.now + 10'000});
  const auto answer = h.AnswerTo(call);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetFaultInfo(answer->status)->reason, "TRANSPORT_UNAVAILABLE");
  EXPECT_THAT(std::string(answer->status.message()), HasSubstr("cpu-0 computes on the CPU"));
  EXPECT_EQ(h.state.groups.count("g"), 0u);
  const CallId honoured = 78;
  h.Do(EnsureGroup{honoured, "g", {.size = 4, .inner_transport = "host"}, 0, h.now + 10'000});
  EXPECT_EQ(h.group("g").topology->inner.reason, "asked for");
  h.Do(EnsureGroup{79, "h", {.size = 4, .outer_transport = "No Name"}, 0, h.now});
  EXPECT_EQ(h.AnswerTo(79)->status.code(), absl::StatusCode::kInvalidArgument);
}

CallId Ask(Harness& h, CallId call, const std::string& name, const GroupOptions& options) {
  h.Do(EnsureGroup{call, name, options, 0, h.now + 10'000});
  return call;
}

// At once and before any worker is asked to prepare; and nothing of it stays.
TEST(Placement, WhatTheWorkersWouldRefuseIsRefusedWhenItIsPlanned) {
  Harness h;
  JoinAll(h, ring::PresetFacts("dgx-h100x4-nics8").value());
  const auto refusal = [&](CallId call, const GroupOptions& options) {
    const auto answer = h.AnswerTo(Ask(h, call, "g", options));
    if (!answer) return absl::OkStatus();
    EXPECT_EQ(answer->status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(GetFaultInfo(answer->status)->reason, "TRANSPORT_UNAVAILABLE");
    EXPECT_EQ(h.state.groups.count("g"), 0u);
    return answer->status;
  };
  EXPECT_THAT(std::string(refusal(90, {.size = 32,
                                       .window_size = 4,
                                       .inner_transport = "cuipc",
                                       .outer_transport = "nccl"})
                              .message()),
              HasSubstr("expected a window of 8, whose ranks are those of a node, got 4"));
  EXPECT_THAT(std::string(refusal(91, {.size = 32,
                                       .window_size = 8,
                                       .inner_transport = "nccl",
                                       .outer_transport = "host"})
                              .message()),
              HasSubstr("expected two that move one memory in common"));
  EXPECT_THAT(std::string(refusal(92, {.size = 32,
                                       .window_size = 8,
                                       .inner_link = {1e9, 0},
                                       .inner_transport = "cuipc",
                                       .outer_transport = "host"})
                              .message()),
              HasSubstr("emulated links: expected one transport for both levels"));
  EXPECT_TRUE(h.Seen<SendPrepare>().empty());
}

// A group that asks for no window is one ring: NCCL then serves both levels, and says why.
TEST(Placement, AWindowThatIsNoNodeGetsTransportsThatServeIt) {
  Harness h;
  JoinAll(h, ring::PresetFacts("dgx-h100x4-nics8").value());
  h.Ensure("g", 32);
  EXPECT_EQ(h.group("g").topology->inner.name, "nccl");
  EXPECT_EQ(h.group("g").topology->outer.name, "nccl");
  EXPECT_THAT(h.group("g").topology->inner.reason, HasSubstr("expected a window of 8"));
}

TEST(Placement, AWorkerThatSaysNothingMoreHasItsOneTransport) {
  Harness h;
  for (const char* name : {"w1", "w0"}) {
    const SessionId session = name[1] == '0' ? 1 : 2;
    h.Do(WorkerHello{
        session,
        {.name = name, .incarnation = 1, .address = "a:1", .node = "n", .transport = "x"}});
  }
  h.Ensure("g", 2);
  EXPECT_EQ(h.group("g").topology->inner.name, "x");
  EXPECT_THAT(h.MembersOf("g"), ElementsAre("w0", "w1"));
}

TEST(Placement, BothHandlesOfEveryMemberAreRelayed) {
  Harness h;
  const SessionId w0 = h.Join("w0", "n0");
  const SessionId w1 = h.Join("w1", "n1");
  h.Ensure("g", 2);
  const uint64_t epoch = h.group("g").epoch;
  h.Do(GroupPrepared{w0, "g", epoch, "near-0", "", "far-0"});
  h.Do(GroupPrepared{w1, "g", epoch, "near-1", "", "far-1"});
  const auto connects = h.Seen<SendConnect>();
  ASSERT_EQ(connects.size(), 2u);
  EXPECT_THAT(*connects[1].handles, ElementsAre("near-0", "near-1"));
  EXPECT_THAT(*connects[1].outer_handles, ElementsAre("far-0", "far-1"));
}

}  // namespace
}  // namespace annulus::coordinator
