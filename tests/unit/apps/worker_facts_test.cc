// SPDX-License-Identifier: Apache-2.0
// What a worker tells of its machine: two sockets as hwloc would export them (HWLOC_XMLFILE), and
// a driver of four GPUs, found by the name that every driver has, of which the PCI bus shows one.
#include "server/apps/worker_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace annulus::apps {
namespace {

using ring::GpuLink;
using ring::GpuPeer;
using testing::ElementsAre;
using testing::HasSubstr;

annulusTransportV1 Table(const char* name, uint64_t caps) {
  annulusTransportV1 table{};
  table.name = name;
  table.caps = caps;
  return table;
}

TEST(WorkerFacts, AGpuTellsItsPeersItsAdaptersAndItsTransports) {
  const annulusTransportV1 host = Table("host", ANNULUS_TRANSPORT_CAP_HOST_MEMORY);
  const annulusTransportV1 nccl = Table("nccl", ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY);
  const ring::WorkerFacts facts = CollectFacts("cuda", "0000:1b:00.0", {&host, &nccl});
  EXPECT_EQ(facts.device, ring::DeviceKind::kCuda);
  EXPECT_EQ(facts.gpu_uuid, "GPU-0");
  EXPECT_FALSE(facts.partitioned);
  EXPECT_TRUE(facts.peers_known);
  EXPECT_THAT(facts.peers, ElementsAre(GpuPeer{"0000:43:00.0", GpuLink::kNvlink},
                                       GpuPeer{"0000:9d:00.0", GpuLink::kNvlink},
                                       GpuPeer{"0000:c3:00.0", GpuLink::kNvlink}));
  EXPECT_EQ(facts.numa_node, 0);
  EXPECT_EQ(facts.nics.size(), 3u);
  EXPECT_THAT(facts.ipc_scope, HasSubstr("net:["));
  EXPECT_THAT(facts.transports,
              ElementsAre(ring::LoadedTransport{.name = "host", .host_memory = true},
                          ring::LoadedTransport{.name = "nccl", .device_memory = true}));
}

// The bus shows 0000:1b:00.0, and this GPU does not name it among its peers: it is that GPU's
// neighbour in another container, as far as can be seen.
TEST(WorkerFacts, AGpuThatTheDriverDoesNotKnowTellsNothingOfOthers) {
  const ring::WorkerFacts facts = CollectFacts("cuda", "0000:77:00.0", {});
  EXPECT_FALSE(facts.peers_known);
  EXPECT_TRUE(facts.peers.empty());
  EXPECT_EQ(facts.gpu_uuid, "");
}

TEST(WorkerFacts, ACpuWorkerAsksNoDriver) {
  const ring::WorkerFacts facts = CollectFacts("cpu", "", {});
  EXPECT_EQ(facts.device, ring::DeviceKind::kCpu);
  EXPECT_FALSE(facts.peers_known);
  EXPECT_TRUE(facts.peers.empty());
  EXPECT_EQ(facts.ipc_scope, "");
}

}  // namespace
}  // namespace annulus::apps
