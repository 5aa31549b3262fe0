// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/ring/topology/presets.h"
#include "server/ring/topology/topology_text.h"

namespace annulus::ring {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Workers(const Topology& topology) {
  std::vector<std::string> names;
  for (const Seat& seat : topology.seats) names.push_back(seat.facts.worker);
  return names;
}

// Four GPUs of one host; those in one of `pairs` are bridged by NVLink, the rest reach each other
// over PCIe.
std::vector<WorkerFacts> Bridged(const std::vector<std::pair<int, int>>& pairs) {
  std::vector<WorkerFacts> gpus;
  for (int i = 0; i < 4; ++i) {
    WorkerFacts facts{.worker = absl::StrCat("w", i), .node = "n", .host_id = "h"};
    facts.device = DeviceKind::kCuda;
    facts.bus_id = absl::StrCat("b", i);
    facts.peers_known = true;
    for (int other = 0; other < 4; ++other) {
      if (other == i) continue;
      GpuLink link = GpuLink::kPcie;
      for (const auto& [a, b] : pairs) {
        if ((a == i && b == other) || (b == i && a == other)) link = GpuLink::kNvlink;
      }
      facts.peers.push_back({absl::StrCat("b", other), link});
    }
    facts.transports = {{"host", ""}};
    gpus.push_back(facts);
  }
  return gpus;
}

TEST(Topology, NeighboursSitWhereTheNvlinkBridgesAre) {
  EXPECT_THAT(Workers(*DecideTopology(Bridged({{0, 2}, {1, 3}}), {})),
              ElementsAre("w0", "w1", "w3", "w2"));
  EXPECT_THAT(Workers(*DecideTopology(Bridged({{0, 3}, {3, 1}, {1, 2}}), {})),
              ElementsAre("w0", "w2", "w1", "w3"));
  EXPECT_THAT(Workers(*DecideTopology(Bridged({}), {})), ElementsAre("w0", "w1", "w2", "w3"));
  // Windows of two are rings of their own: a pair each.
  EXPECT_THAT(Workers(*DecideTopology(Bridged({{0, 3}}), {.window_size = 2})),
              ElementsAre("w0", "w3", "w1", "w2"));
}

TEST(Topology, RingsJoinNeighboursAndEqualPlaces) {
  const auto topology = DecideTopology(PresetFacts("dgx-h100x4-nics4").value(), {});
  EXPECT_EQ(topology->window.window_size, 8);
  EXPECT_EQ(topology->InnerNext(7), 0);
  EXPECT_EQ(topology->InnerNext(12), 13);
  EXPECT_EQ(topology->OuterNext(3), 11);
  EXPECT_EQ(topology->OuterNext(31), 7);
  EXPECT_EQ(topology->LevelOf(0, 7), Level::kInner);
  EXPECT_EQ(topology->LevelOf(7, 8), Level::kOuter);
  for (const Seat& seat : topology->seats) {
    const Seat& peer = topology->seats[topology->OuterNext(&seat - &topology->seats[0])];
    EXPECT_EQ(seat.nic.nic, peer.nic.nic) << "the outer ring leaves its rail";
  }
}

TEST(Topology, WindowsFollowTheNodes) {
  const auto window = [](const std::vector<int>& nodes) { return ChooseWindow(nodes).window_size; };
  EXPECT_EQ(window({0}), 1);
  EXPECT_EQ(window({0, 0, 0}), 3);
  EXPECT_EQ(window({0, 0, 1, 1, 2, 2}), 2);
  EXPECT_EQ(window({0, 1, 2}), 3);
  EXPECT_EQ(window({0, 0, 0, 0, 1, 1}), 2);
  EXPECT_EQ(window({0, 0, 0, 1, 1}), 5);
  EXPECT_THAT(ChooseWindow({0, 0, 0, 0, 1, 1}).reason, HasSubstr("2 or 4 ranks: 2 divides"));
}

TEST(Topology, WishesAreHonouredOrRefused) {
  auto workers = PresetFacts("cpu-4").value();
  std::swap(workers[0], workers[3]);
  EXPECT_THAT(Workers(*DecideTopology(workers, {})),
              ElementsAre("cpu-0", "cpu-1", "cpu-2", "cpu-3"));
  EXPECT_THAT(Workers(*DecideTopology(workers, {.keep_order = true})),
              ElementsAre("cpu-3", "cpu-1", "cpu-2", "cpu-0"));
  const auto stated = DecideTopology(workers, {.ranks_per_node = 2});
  EXPECT_EQ(stated->window.window_size, 2);
  EXPECT_EQ(stated->LevelOf(1, 2), Level::kOuter);
  EXPECT_EQ(stated->outer.name, "host");
  const absl::Status window = DecideTopology(workers, {.window_size = 3}).status();
  EXPECT_EQ(window.message(), "window size: expected a divisor of 4 (1, 2, 4), got 3");
  workers[1].worker = "cpu-3";
  EXPECT_THAT(DecideTopology(workers, {}).status().message(), HasSubstr("'cpu-3' twice"));
  EXPECT_EQ(DecideTopology({}, {}).status().message(), "workers: expected 1 to 4096, got 0");
}

TEST(TopologyText, ShowsTheDecisionsTheTableAndThePicture) {
  const auto topology = DecideTopology(Bridged({{0, 1}, {2, 3}}), {.window_size = 2});
  const std::string text = TopologyToText(*topology);
  EXPECT_THAT(text, HasSubstr("4 ranks on 1 node\nwindow 2: as given; 4 would suit: all 4 ranks "
                              "are on one node: one ring\n"));
  EXPECT_THAT(text, HasSubstr("inside nodes: host: through host memory; not cuipc: not loaded"));
  EXPECT_THAT(text, HasSubstr("between nodes: -: all ranks are on one node"));
  EXPECT_THAT(text, HasSubstr("     0 ===   1\n     |       |\n     2 ===   3\n"));
  const auto json = nlohmann::json::parse(TopologyToJson(*topology));
  EXPECT_EQ(json["ranks"][1]["inner_next"], 0);
  EXPECT_EQ(json["ranks"][1]["outer_next"], 3);
  EXPECT_EQ(json["ranks"][1]["inner_link"], "NVLink");
  EXPECT_EQ(json["inner"]["transport"], "host");
}

}  // namespace
}  // namespace annulus::ring
