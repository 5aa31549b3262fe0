// SPDX-License-Identifier: Apache-2.0
// Which two transports go together in a group.
#include "server/ring/topology/transport_pair.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/ring/topology/presets.h"

namespace annulus::ring {
namespace {

using testing::HasSubstr;

// A GPU a rank, NVLink inside a node, the transports of the presets.
std::vector<WorkerFacts> Gpus(const std::vector<int>& nodes) {
  const std::vector<WorkerFacts> preset = PresetFacts("two-gpus").value();
  std::vector<WorkerFacts> ranks;
  for (size_t rank = 0; rank < nodes.size(); ++rank) {
    WorkerFacts facts = preset.front();
    facts.worker = absl::StrCat("w", rank);
    facts.node = facts.host_id = absl::StrCat("n", nodes[rank]);
    facts.bus_id = absl::StrCat("b", rank);
    facts.peers.clear();
    for (size_t other = 0; other < nodes.size(); ++other) {
      if (other != rank && nodes[other] == nodes[rank] && facts.peers.size() < kMaxGpuPeers) {
        facts.peers.push_back({absl::StrCat("b", other), GpuLink::kNvlink});
      }
    }
    ranks.push_back(facts);
  }
  return ranks;
}

absl::StatusOr<TransportPair> Choose(const std::vector<int>& nodes, int window,
                                     const TransportWish& wish = {}) {
  return ChooseTransports(Gpus(nodes), nodes, window, wish);
}

const std::vector<int> kTwoNodes = {0, 0, 0, 0, 1, 1, 1, 1};

TEST(TransportPair, NcclServesOneLevelWhereWindowsAreNodes) {
  const auto pair = Choose(kTwoNodes, 4);
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->inner.name, "cuipc");
  EXPECT_EQ(pair->inner.reason, "one host, every two GPUs joined by NVLink");
  EXPECT_EQ(pair->outer.name, "nccl");
}

// One ring over all is what a group gets that asks for no window.
TEST(TransportPair, NcclServesBothLevelsWhereWindowsAreNotNodes) {
  for (const int window : {1, 2, 8}) {
    const auto pair = Choose(kTwoNodes, window);
    ASSERT_TRUE(pair.ok()) << pair.status();
    EXPECT_EQ(pair->inner.name, "nccl");
    EXPECT_EQ(pair->outer.name, "nccl");
    EXPECT_THAT(pair->inner.reason, HasSubstr("not cuipc: nccl beside cuipc inside nodes serves "
                                              "whole communicators: expected a window of 4"));
    EXPECT_THAT(pair->inner.reason, HasSubstr(absl::StrCat("got ", window, " (ranks 0 and")));
  }
}

TEST(TransportPair, AForcedPairThatTheWindowSplitsIsRefused) {
  const absl::Status status = Choose(kTwoNodes, 8, {.inner = "cuipc", .outer = "nccl"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetFaultInfo(status)->reason, "TRANSPORT_UNAVAILABLE");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("expected a window of 4, whose ranks are those of a node, got 8"));
  // What was forced on one level alone is met by the other.
  EXPECT_EQ(Choose(kTwoNodes, 8, {.outer = "nccl"})->inner.name, "nccl");
  const auto near = Choose(kTwoNodes, 8, {.inner = "cuipc"});
  EXPECT_EQ(near->outer.name, "host");
  EXPECT_THAT(near->outer.reason, HasSubstr("through host memory; not nccl: nccl beside cuipc"));
}

TEST(TransportPair, TwoWithoutACommonMemoryAreRefused) {
  const absl::Status status = Choose(kTwoNodes, 4, {.inner = "nccl", .outer = "host"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetFaultInfo(status)->reason, "TRANSPORT_UNAVAILABLE");
  EXPECT_EQ(status.message(),
            "transports: expected two that move one memory in common, got nccl inside nodes, which "
            "moves that of GPUs, and host between them, which moves the host's");
  EXPECT_EQ(Choose(kTwoNodes, 4, {.inner = "host", .outer = "nccl"}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Choose(kTwoNodes, 4, {.inner = "cuipc", .outer = "host"}).ok());
}

TEST(TransportPair, WhatIsNotToldIsLeftToTheWorkers) {
  std::vector<WorkerFacts> ranks = Gpus(kTwoNodes);
  for (WorkerFacts& facts : ranks) {
    for (LoadedTransport& loaded : facts.transports)
      loaded.host_memory = loaded.device_memory = false;
  }
  EXPECT_TRUE(ChooseTransports(ranks, kTwoNodes, 4, {.inner = "nccl", .outer = "host"}).ok());
}

// Beside a transport of host memory all goes through that: cuipc would stand idle.
TEST(TransportPair, GpuMemoryIsNotPromisedWhereTheOtherLevelCannotMoveIt) {
  std::vector<WorkerFacts> ranks = Gpus(kTwoNodes);
  for (WorkerFacts& facts : ranks) {
    std::erase_if(facts.transports, [](const LoadedTransport& t) { return t.name == "nccl"; });
  }
  const auto pair = ChooseTransports(ranks, kTwoNodes, 4, {});
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->inner.name, "host");
  EXPECT_THAT(pair->inner.reason, HasSubstr("not cuipc: host between nodes moves the host's"));
  EXPECT_EQ(pair->outer.name, "host");
}

TEST(TransportPair, EmulatedLinksTakeOneTransportOfTheHostsMemory) {
  const auto pair = Choose(kTwoNodes, 4, {.emulated = true});
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->inner.name, "host");
  EXPECT_EQ(pair->outer.name, "host");
  EXPECT_THAT(pair->outer.reason, HasSubstr("emulated links: expected one transport"));
  const absl::Status forced =
      Choose(kTwoNodes, 4, {.inner = "cuipc", .outer = "host", .emulated = true}).status();
  EXPECT_THAT(std::string(forced.message()),
              HasSubstr("got cuipc inside nodes and host between them"));
  const std::vector<int> one_node(4, 0);
  EXPECT_EQ(Choose(one_node, 4, {.emulated = true})->inner.name, "cuipc");
  const absl::Status alone = Choose(one_node, 4, {.inner = "nccl", .emulated = true}).status();
  EXPECT_THAT(std::string(alone.message()), HasSubstr("moves the host's memory, got nccl"));
}

// What the transport itself demands when it is connected, word for word: of each communicator that
// a rank is in, all others are its peers or none is.
bool NcclWouldConnect(const std::vector<int>& nodes, int window, bool inside) {
  const int size = static_cast<int>(nodes.size());
  for (int rank = 0; rank < size; ++rank) {
    for (const bool in_window : {true, false}) {
      int others = 0;
      int peers = 0;
      for (int other = 0; other < size; ++other) {
        const bool member =
            in_window ? other / window == rank / window : other % window == rank % window;
        if (other == rank || !member) continue;
        ++others;
        peers += (nodes[other] == nodes[rank]) == inside;
      }
      if (peers != 0 && peers != others) return false;
    }
  }
  return true;
}

bool HasNoHop(const absl::Status& status) {
  return status.message().find("there is no hop") != std::string::npos;
}

TEST(TransportPair, RefusesExactlyWhatNcclWouldRefuse) {
  std::mt19937 random(3);
  int refused = 0;
  int taken = 0;
  for (int round = 0; round < 400; ++round) {
    const int window = 1 + static_cast<int>(random() % 4);
    const int windows = 1 + static_cast<int>(random() % 4);
    std::vector<int> nodes(static_cast<size_t>(window * windows));
    const int kind = static_cast<int>(random() % 3);
    for (size_t rank = 0; rank < nodes.size(); ++rank) {
      nodes[rank] = kind == 0   ? static_cast<int>(rank) / window
                    : kind == 1 ? static_cast<int>(rank) % window
                                : static_cast<int>(random() % 3);
    }
    TransportWish wish{.inner = "cuipc", .outer = "nccl"};
    const auto pair = Choose(nodes, window, wish);
    if (!pair.ok() && HasNoHop(pair.status())) continue;
    EXPECT_EQ(pair.ok(), NcclWouldConnect(nodes, window, /*inside=*/false));
    EXPECT_EQ(pair.ok(), NcclWouldConnect(nodes, window, /*inside=*/true));
    ++(pair.ok() ? taken : refused);
  }
  EXPECT_GT(refused, 20);
  EXPECT_GT(taken, 20);
}

}  // namespace
}  // namespace annulus::ring
