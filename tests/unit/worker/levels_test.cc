// SPDX-License-Identifier: Apache-2.0
// A transport inside nodes and another between them: two copies of the host's table, told apart by
// their names and by what goes through them; and one of another plugin beside the host's.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "server/ring/planner.h"
#include "server/transport/cuipc/cuipc_plugin.h"
#include "server/transport/host/host_plugin.h"
#include "tests/contract/transport/fake_gpu.h"
#include "tests/support/apart/apart_plugin.h"
#include "tests/unit/worker/run_both.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kSize = 4;
constexpr int kPerNode = 2;

// Sends that went through each, and how many of them left the level.
std::atomic<int> g_sends[2];
std::atomic<int> g_astray[2];

template <int kLevel>
annulusTransportStatus CountedSend(annulusTransport* transport, int32_t peer, uint64_t tag,
                                   const annulusSegment* segments, size_t count,
                                   int64_t deadline_ns, annulusRequest** request) {
  ++g_sends[kLevel];
  // A rank has no path to a peer of the other level.
  const std::string path = transport::HostPlugin()->path(transport, peer);
  g_astray[kLevel] += path == "none";
  return transport::HostPlugin()->isend(transport, peer, tag, segments, count, deadline_ns,
                                        request);
}

template <int kLevel>
const annulusTransportV1* Copy(const char* name) {
  static annulusTransportV1 table;
  table = *transport::HostPlugin();
  table.name = name;
  table.isend = CountedSend<kLevel>;
  return &table;
}

TestRing::Options TwoTransports() {
  for (int level : {0, 1}) g_sends[level] = g_astray[level] = 0;
  TestRing::Options options;
  options.size = kSize;
  options.ranks_per_node = kPerNode;
  options.transports = {transport::HostPlugin(), Copy<0>("near"), Copy<1>("far")};
  options.inner_transport = "near";
  options.outer_transport = "far";
  return options;
}

// Sends of a plan inside nodes and between them.
std::vector<int> SendsByLevel(const ring::Plan& plan) {
  std::vector<int> sends(2);
  for (const ring::Transfer& transfer : plan.transfers) {
    ++sends[transfer.src / kPerNode != transfer.dst / kPerNode];
  }
  return sends;
}

TEST(Levels, EachHopTakesTheTransportOfItsPeersNode) {
  for (const int window : {1, 2, 4}) {
    TestRing ring(TwoTransports());
    Problem problem;
    problem.size = kSize;
    problem.window = window;
    std::vector<int> expected(2);
    const ring::Plan forward = *ring::MakePlan(SpecOf(problem, ring::Direction::kForward, false));
    const ring::Plan backward = *ring::MakePlan(SpecOf(problem, ring::Direction::kBackward, false));
    Tensors tensors(problem, forward);
    ring.AddRegion(1, tensors.memory());
    for (const auto& answer : ring.Attend(tensors.Forward(ring, ring.AddPlan(forward), "f"))) {
      ASSERT_TRUE(answer.ok()) << answer.status();
    }
    for (const auto& answer : ring.Attend(tensors.Backward(ring, ring.AddPlan(backward), "b"))) {
      ASSERT_TRUE(answer.ok()) << answer.status();
    }
    EXPECT_LE(tensors.ForwardError(), 5e-6);
    EXPECT_LE(tensors.GradientError(), 1e-5);
    for (const int level : {0, 1}) {
      // A rank replays the forward before the backward where it kept nothing.
      EXPECT_GE(g_sends[level], SendsByLevel(forward)[level] + SendsByLevel(backward)[level]);
      EXPECT_GT(g_sends[level], 0);
      EXPECT_EQ(g_astray[level], 0);
    }
  }
}

// What one of the two cannot move from the device goes through the host's memory on both.
TEST(Levels, TwoPluginsServeDevicesApart) {
  TestRing::Options options = TwoTransports();
  options.compute = testing_support::ApartPlugin();
  options.devices = 1;  // the emulated copy engine's machine has no more
  options.transports = {transport::cuipc::CuipcPlugin(), transport::HostPlugin()};
  options.inner_transport = "cuipc";
  options.outer_transport = "host";
  TestRing ring(options);
  for (const int window : {1, 2, 4}) {
    Problem problem;
    problem.size = kSize;
    problem.window = window;
    RunBoth(ring, problem, {}, "window-" + std::to_string(window));
  }
  EXPECT_EQ(transport::cuipc::FakeGpu::The().Count().copies_ever, 0);
  EXPECT_EQ(transport::cuipc::FakeGpu::The().Violations(), "");
}

TEST(Levels, OneNameForBothIsOneTransport) {
  TestRing::Options options = TwoTransports();
  options.outer_transport = "near";
  TestRing ring(options);
  GroupAssignment again{.group = "g", .epoch = 1, .rank = 1, .size = kSize};
  again.ranks_per_node = kPerNode;
  EXPECT_FALSE(ring.engine(1).PrepareGroup(again)->outer.has_value());
  options.outer_transport = "";  // there is no such hop
  TestRing one_level(options);
  EXPECT_FALSE(one_level.engine(1).PrepareGroup(again)->outer.has_value());
  TestRing two(TwoTransports());
  EXPECT_TRUE(two.engine(1).PrepareGroup(again)->outer.has_value());
}

TEST(Levels, WhatCannotBeIsRefusedWithTheReason) {
  TestRing ring(TwoTransports());
  GroupAssignment next{.group = "g", .epoch = 2, .rank = 0, .size = kSize};
  next.ranks_per_node = kPerNode;
  next.inner_transport = "cuipc";
  absl::Status status = ring.engine(0).PrepareGroup(next).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("no transport 'cuipc' (it has host, near, far)"));
  next.inner_transport = "near";
  next.outer_transport = "far";
  next.inner_link.bytes_per_second = 1e9;
  status = ring.engine(0).PrepareGroup(next).status();
  EXPECT_THAT(status.message(), HasSubstr("near inside nodes and far between"));
}

TEST(Levels, RanksMustAgreeOnTheNumberOfTransports) {
  TestRing ring(TwoTransports());
  std::vector<RankHandles> handles;
  for (int rank = 0; rank < 2; ++rank) {
    GroupAssignment group{.group = "h", .epoch = 1, .rank = rank, .size = 2, .window_size = 2};
    group.inner_transport = "near";
    if (rank == 0) group.outer_transport = "far";
    handles.push_back(*ring.engine(rank).PrepareGroup(group));
  }
  const absl::Status status = ring.engine(0).ConnectGroup("h", 1, handles);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 has one transport, this rank has two"));
}

// The loss of a peer ends both transports: nobody waits for a hop of the other level.
TEST(Levels, APeersLossEndsBothTransports) {
  TestRing ring(TwoTransports());
  Problem problem;
  problem.size = kSize;
  problem.window = kPerNode;
  const ring::Plan plan = *ring::MakePlan(SpecOf(problem, ring::Direction::kForward, false));
  Tensors tensors(problem, plan);
  ring.AddRegion(1, tensors.memory());
  auto calls = tensors.Forward(ring, ring.AddPlan(plan), "f");
  ring.KillEngine(3);
  calls.pop_back();
  std::vector<absl::Status> ends(calls.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < calls.size(); ++rank) {
    threads.emplace_back([&, rank] {
      ends[rank] = ring.engine(static_cast<int>(rank)).Attend(calls[rank]).status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& end : ends) EXPECT_FALSE(end.ok());
}

}  // namespace
}  // namespace annulus::worker::testing
