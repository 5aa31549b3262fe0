// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/facts_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "server/ring/topology/presets.h"

namespace annulus::rpc {
namespace {

using testing::HasSubstr;

TEST(FactsConvert, ComesBackAsItWent) {
  for (const ring::TopologyPreset& preset : ring::TopologyPresets()) {
    const std::vector<ring::WorkerFacts> workers = ring::PresetFacts(preset.name).value();
    for (ring::WorkerFacts facts : workers) {
      facts.gpu_uuid = "GPU-1";
      facts.partitioned = true;
      facts.ipc_scope = "uid 0";
      const auto again = FactsFromProto(FactsToProto(facts));
      ASSERT_TRUE(again.ok()) << again.status();
      facts.worker = facts.node = facts.host_id = "";  // the Hello's own
      EXPECT_EQ(*again, facts);
    }
  }
  EXPECT_EQ(*FactsFromProto({}), ring::WorkerFacts{});
}

TEST(FactsConvert, RefusesWhatIsTooLongOrNotText) {
  v1::WorkerFacts facts;
  facts.set_bus_id("a\nb");
  EXPECT_THAT(std::string(FactsFromProto(facts).status().message()), HasSubstr("facts.bus_id"));
  facts.set_bus_id("");
  facts.set_ipc_scope(std::string(129, 'x'));
  EXPECT_THAT(std::string(FactsFromProto(facts).status().message()), HasSubstr("facts.ipc_scope"));
  facts.clear_ipc_scope();
  facts.add_nics()->set_name(std::string(200, 'x'));
  EXPECT_THAT(std::string(FactsFromProto(facts).status().message()), HasSubstr("facts.nics.name"));
  facts.clear_nics();
  for (int i = 0; i < 65; ++i) facts.add_peers();
  EXPECT_EQ(FactsFromProto(facts).status().message(), "facts.peers: expected at most 64, got 65");
}

TEST(FactsConvert, WhatANewerVersionSaysCountsLeast) {
  v1::WorkerFacts facts;
  facts.add_peers()->set_link(static_cast<v1::WorkerFacts::GpuLink>(9));
  facts.add_nics()->set_distance(static_cast<v1::WorkerFacts::NicDistance>(9));
  const auto known = FactsFromProto(facts);
  ASSERT_TRUE(known.ok());
  EXPECT_EQ(known->peers[0].link, ring::GpuLink::kNone);
  EXPECT_EQ(known->nics[0].distance, ring::NicDistance::kAcross);
}

}  // namespace
}  // namespace annulus::rpc
