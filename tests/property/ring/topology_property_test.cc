// SPDX-License-Identifier: Apache-2.0
// What holds for every topology, over random clusters: full of gaps, unequal, and in any order.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "server/ring/topology/facts_json.h"
#include "server/ring/topology/ring_order.h"
#include "server/ring/topology/topology.h"
#include "server/ring/topology/topology_text.h"
#include "tests/property/ring/random_spec.h"
#include "tests/support/under_sanitizer.h"

namespace annulus::testing {
namespace {

using ring::DeviceKind;
using ring::GpuLink;
using ring::Topology;
using ring::WorkerFacts;

constexpr int kClusters = kUnderSanitizer ? 60 : 600;

std::vector<ring::Nic> RandomNics(Random& random, int count) {
  std::vector<ring::Nic> nics;
  for (int i = 0; i < count; ++i) {
    nics.push_back({absl::StrCat("nic", i), static_cast<ring::NicDistance>(Draw(random, 0, 2)),
                    Pick(random, std::vector<int64_t>{0, 100'000, 400'000, 400'000})});
  }
  return nics;
}

void AddNode(Random& random, int node, std::vector<WorkerFacts>* members) {
  const int workers = Draw(random, 1, 9);
  const int gpus = Draw(random, 1, workers);
  const int nics = Draw(random, 0, 5);
  const bool cpu = Draw(random, 0, 4) == 0;
  for (int i = 0; i < workers; ++i) {
    WorkerFacts facts{.worker = absl::StrCat("w", random() % 1000, "-", members->size()),
                      .node = absl::StrCat("node", node)};
    if (Draw(random, 0, 3) > 0) facts.host_id = absl::StrCat("host", node);
    facts.device = cpu ? DeviceKind::kCpu : DeviceKind::kCuda;
    if (!cpu) facts.bus_id = absl::StrCat("bus", i % gpus);
    facts.peers_known = Draw(random, 0, 3) > 0;
    for (int other = 0; facts.peers_known && other < gpus; ++other) {
      facts.peers.push_back({absl::StrCat("bus", other), static_cast<GpuLink>(Draw(random, 0, 2))});
    }
    facts.nics = RandomNics(random, nics);
    facts.transports = {{"host", ""}};
    if (Draw(random, 0, 5) > 0) facts.transports.push_back({"nccl", "2"});
    if (Draw(random, 0, 5) > 0) facts.transports.push_back({"cuipc", ""});
    members->push_back(std::move(facts));
  }
}

std::vector<WorkerFacts> RandomCluster(Random& random) {
  std::vector<WorkerFacts> members;
  const int nodes = Draw(random, 1, 4);
  for (int node = 0; node < nodes; ++node) AddNode(random, node, &members);
  return members;
}

std::vector<std::string> Names(const Topology& topology) {
  std::vector<std::string> names;
  for (const ring::Seat& seat : topology.seats) names.push_back(seat.facts.worker);
  return names;
}

TEST(TopologyProperty, EveryMemberOnceNodeMajorAndTheSameForAnyOrderOfInput) {
  Random random(BaseSeed());
  for (int i = 0; i < kClusters; ++i) {
    std::vector<WorkerFacts> members = RandomCluster(random);
    SCOPED_TRACE(ring::FactsToText(members));
    const auto topology = ring::DecideTopology(members, {});
    ASSERT_TRUE(topology.ok()) << topology.status();
    const std::vector<std::string> names = Names(*topology);
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), members.size());
    for (int rank = 1; rank < topology->size(); ++rank) {
      EXPECT_LE(topology->seats[rank - 1].facts.node, topology->seats[rank].facts.node);
    }
    EXPECT_EQ(topology->size() % topology->window.window_size, 0);
    EXPECT_FALSE(topology->inner.reason.empty());
    EXPECT_FALSE(topology->outer.reason.empty());
    std::shuffle(members.begin(), members.end(), random);
    const auto again = ring::DecideTopology(members, {});
    ASSERT_TRUE(again.ok());
    ASSERT_EQ(ring::TopologyToJson(*topology), ring::TopologyToJson(*again));
  }
}

// Where windows fit into nodes, no inner hop leaves one and every outer hop joins equal places.
TEST(TopologyProperty, InnerRingsStayInsideNodesWhereTheyCan) {
  Random random(BaseSeed() + 1);
  for (int i = 0; i < kClusters; ++i) {
    const auto topology = ring::DecideTopology(RandomCluster(random), {});
    ASSERT_TRUE(topology.ok());
    const int window = topology->window.window_size;
    std::map<int, int> ranks_of;
    for (const ring::Seat& seat : topology->seats) ++ranks_of[seat.node];
    const bool fits = std::all_of(ranks_of.begin(), ranks_of.end(),
                                  [&](const auto& node) { return node.second % window == 0; });
    std::set<int> inner, outer;
    for (int rank = 0; rank < topology->size(); ++rank) {
      inner.insert(topology->InnerNext(rank));
      outer.insert(topology->OuterNext(rank));
      EXPECT_EQ(topology->OuterNext(rank) % window, rank % window);
      if (!fits) continue;
      EXPECT_EQ(topology->LevelOf(rank, topology->InnerNext(rank)), ring::Level::kInner);
    }
    EXPECT_EQ(static_cast<int>(inner.size()), topology->size());
    EXPECT_EQ(static_cast<int>(outer.size()), topology->size());
  }
}

TEST(TopologyProperty, AdaptersOfANodeServeEquallyManyGpusWithinOne) {
  Random random(BaseSeed() + 2);
  int dealt = 0;
  for (int i = 0; i < kClusters; ++i) {
    const std::vector<WorkerFacts> members = RandomCluster(random);
    const auto choices = ring::AssignNics(members);
    std::map<std::string, std::map<std::string, std::set<std::string>>> gpus_of;
    std::map<std::string, std::map<std::string, std::string>> nic_of;
    for (size_t m = 0; m < members.size(); ++m) {
      if (choices[m].nic.empty()) continue;
      gpus_of[members[m].node][choices[m].nic].insert(members[m].bus_id);
      const auto [known, fresh] =
          nic_of[members[m].node].emplace(members[m].bus_id, choices[m].nic);
      EXPECT_EQ(known->second, choices[m].nic) << "one GPU, two adapters";
    }
    for (const auto& [node, nics] : gpus_of) {
      size_t least = SIZE_MAX, most = 0;
      for (const auto& [nic, gpus] : nics) {
        least = std::min(least, gpus.size());
        most = std::max(most, gpus.size());
      }
      EXPECT_LE(most - least, 1u);
      ++dealt;
    }
  }
  EXPECT_GT(dealt, kClusters / 2);
}

int64_t RingCost(const std::vector<WorkerFacts>& members, const std::vector<int>& order) {
  constexpr int64_t kPrices[] = {0, 0, 1, 100, 100, 10'000, 1'000'000};
  int64_t cost = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const auto link = ring::LinkBetween(members[order[i]], members[order[(i + 1) % order.size()]]);
    cost += kPrices[static_cast<int>(link)];
  }
  return cost;
}

// Against every order there is.
TEST(TopologyProperty, NoOrderOfANodeHasBetterLinks) {
  Random random(BaseSeed() + 3);
  for (int i = 0; i < kClusters / 10; ++i) {
    std::vector<WorkerFacts> members;
    AddNode(random, 0, &members);
    if (members.size() < 3 || members.size() > 6) continue;
    const auto size = static_cast<int>(members.size());
    const int64_t found = RingCost(members, ring::RingOrder(members, size));
    std::vector<int> order(members.size());
    std::iota(order.begin(), order.end(), 0);
    do {
      ASSERT_LE(found, RingCost(members, order)) << ring::FactsToText(members);
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

}  // namespace
}  // namespace annulus::testing
