// SPDX-License-Identifier: Apache-2.0
// A handle of zeros: two ranks of a group that are no peers of each other.
#include <random>
#include <set>
#include <utility>

#include "gtest/gtest.h"
#include "tests/contract/transport/kinds.h"

namespace annulus::transport {
namespace {

// One post of each direction, of memory that the kind takes.
void ExpectPostsRefused(const Mesh& mesh, const Kind& kind, int32_t rank, int32_t peer) {
  uint8_t byte = 0;
  void* const data = kind.memory != nullptr ? kind.memory->Allocate(1) : &byte;
  const annulusSegment segment{data, 1};
  annulusRequest* request = nullptr;
  EXPECT_EQ(mesh.table().isend(mesh.at(rank), peer, 1, &segment, 1, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_EQ(mesh.table().irecv(mesh.at(rank), peer, 1, &segment, 1, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_STREQ(mesh.table().path(mesh.at(rank), peer), "none");
  if (kind.memory != nullptr) kind.memory->Free(data);
}

using Edges = std::set<std::pair<int32_t, int32_t>>;  // both ways

// Bytes move over every edge at once, all else is refused.
void ExpectOnly(const Edges& edges, const Mesh& mesh, const Kind& kind) {
  for (int32_t rank = 0; rank < mesh.size(); ++rank) {
    for (int32_t peer = 0; peer < mesh.size(); ++peer) {
      if (peer != rank && edges.count({rank, peer}) == 0) {
        ExpectPostsRefused(mesh, kind, rank, peer);
      }
    }
  }
  std::vector<std::vector<uint8_t>> sent;
  std::vector<std::vector<uint8_t>> got;
  for (const auto& [from, to] : edges) {
    sent.push_back(Pattern(static_cast<uint64_t>(from * mesh.size() + to), 70'000));
    got.emplace_back(sent.back().size());
  }
  std::vector<annulusRequest*> requests;
  size_t edge = 0;
  for (const auto& [from, to] : edges) {
    requests.push_back(mesh.Receive(to, from, 1, Whole(got[edge])));
    requests.push_back(mesh.Send(from, to, 1, Whole(sent[edge++])));
    EXPECT_STRNE(mesh.table().path(mesh.at(from), to), "none");
  }
  for (annulusRequest* request : requests) {
    EXPECT_EQ(mesh.Finish(request).status, ANNULUS_TRANSPORT_OK);
  }
  EXPECT_TRUE(sent == got);
}

// Two nodes of two: ranks 0 and 1, ranks 2 and 3.
constexpr int32_t kSize = 4;
constexpr int32_t kPerNode = 2;

bool OfOneNode(int32_t a, int32_t b) { return a / kPerNode == b / kPerNode; }

class PeersTest : public ::testing::TestWithParam<Kind> {};

TEST_P(PeersTest, ATransportServesInsideNodesAlone) {
  Peering inside{.size = kSize, .window = kPerNode, .are_peers = OfOneNode};
  if (GetParam().one_host) {
    inside.host = [](int32_t rank) { return "node-" + std::to_string(rank / kPerNode); };
  }
  const Mesh mesh(GetParam(), inside);
  ExpectOnly({{0, 1}, {1, 0}, {2, 3}, {3, 2}}, mesh, GetParam());
}

// As a hop between windows goes, from index to index.
TEST_P(PeersTest, ATransportServesBetweenNodesAlone) {
  const auto are_peers = [](int32_t a, int32_t b) { return a % kPerNode == b % kPerNode; };
  const Mesh mesh(GetParam(), {.size = kSize, .window = kPerNode, .are_peers = are_peers});
  ExpectOnly({{0, 2}, {2, 0}, {1, 3}, {3, 1}}, mesh, GetParam());
}

TEST_P(PeersTest, WithoutAnyPeerARankConnectsAtOnce) {
  for (const int32_t window : {0, 1, kPerNode}) {
    const auto are_peers = [](int32_t, int32_t) { return false; };
    const Mesh mesh(GetParam(), {.size = kSize, .window = window, .are_peers = are_peers});
    ExpectOnly({}, mesh, GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Transports, PeersTest, ::testing::ValuesIn(AllKinds()), KindName);

// Those that know no communicators, where each pair of ranks is its own.
class PairsTest : public ::testing::TestWithParam<Kind> {};

TEST_P(PairsTest, AnyPairsMayBePeers) {
  constexpr int32_t kRanks = 5;
  std::mt19937 random(17);
  for (int round = 0; round < 4; ++round) {
    Edges edges;
    for (int32_t a = 0; a < kRanks; ++a) {
      for (int32_t b = 0; b < a; ++b) {
        if (random() % 2 == 0) edges.insert({{a, b}, {b, a}});
      }
    }
    const auto are_peers = [&](int32_t a, int32_t b) { return edges.count({a, b}) > 0; };
    const Mesh mesh(GetParam(), {.size = kRanks, .are_peers = are_peers});
    ExpectOnly(edges, mesh, GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Transports, PairsTest, ::testing::ValuesIn(ProcessKinds()), KindName);

}  // namespace
}  // namespace annulus::transport
