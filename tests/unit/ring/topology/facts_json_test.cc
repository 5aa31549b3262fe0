// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/facts_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/ring/topology/presets.h"

namespace annulus::ring {
namespace {

using testing::HasSubstr;

std::string ErrorOf(const std::string& text) {
  const auto parsed = ParseFactsJson(text);
  return parsed.ok() ? "no error" : std::string(parsed.status().message());
}

std::string WithWorker(const std::string& worker) {
  return absl::StrCat(R"({"schema":"annulus.facts.v1","workers":[)", worker, "]}");
}

TEST(FactsJson, ComesBackAsItWent) {
  for (const TopologyPreset& preset : TopologyPresets()) {
    const auto facts = PresetFacts(preset.name).value();
    const auto again = ParseFactsJson(FactsToText(facts));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, facts) << preset.name;
  }
}

TEST(FactsJson, LeavesOutWhatIsNotKnown) {
  const auto facts =
      ParseFactsJson(WithWorker(R"({"name":"a","node":"n","device":{"kind":"cuda"}})"));
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_FALSE(facts->front().peers_known);
  EXPECT_EQ(facts->front().numa_node, -1);
  EXPECT_TRUE(facts->front().transports.empty());
}

TEST(FactsJson, WhatIsKnownOfOtherGpusComesBackAsItWent) {
  WorkerFacts facts = PresetFacts("two-gpus")->front();
  facts.partitioned = true;
  facts.ipc_scope = "uid 0, net:[1], pid:[2]";
  for (const bool known : {true, false}) {
    facts.peers_known = known;
    const auto again = ParseFactsJson(FactsToText({facts}));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->front(), facts);
  }
  EXPECT_EQ(ErrorOf(WithWorker(R"({"name":"a","node":"n","device":{"kind":"cuda","peers":[],)"
                               R"("other_peers":"some"}})")),
            "workers[0].device.other_peers: expected one of none, unknown, got \"some\"");
  EXPECT_EQ(ErrorOf(WithWorker(R"({"name":"a","node":"n","device":{"kind":"cpu"},"transports":)"
                               R"([{"name":"x","memory":7}]})")),
            "workers[0].transports[0].memory: expected a string of at most 128 bytes, got 7");
}

TEST(FactsJson, SaysWhatWasWrongExpectedAndGot) {
  EXPECT_EQ(ErrorOf("[]"), "description: expected an object, got an array");
  EXPECT_THAT(ErrorOf("{"), HasSubstr("malformed JSON"));
  EXPECT_EQ(ErrorOf(R"({"schema":"x","workers":[]})"),
            "schema: expected \"annulus.facts.v1\", got \"x\"");
  EXPECT_EQ(ErrorOf(WithWorker(R"({"name":"a","device":{"kind":"cpu"}})")),
            "workers[0].node: missing");
  EXPECT_EQ(ErrorOf(WithWorker(R"({"name":"a","node":"n","device":{"kind":"tpu"}})")),
            "workers[0].device.kind: expected one of cpu, cuda, got \"tpu\"");
  EXPECT_EQ(ErrorOf(WithWorker(R"({"name":"","node":"n","device":{"kind":"cpu"}})")),
            "workers[0].name: expected printable ASCII, got \"\"");
  EXPECT_EQ(ErrorOf(WithWorker(
                R"({"name":"a","node":"n","device":{"kind":"cuda","peers":[{"bus_id":"b"}]}})")),
            "workers[0].device.peers[0].link: missing");
  EXPECT_THAT(
      ErrorOf(WithWorker(R"({"name":"a","node":"n","device":{"kind":"cpu"},"nics":[{"name":"x",)"
                         R"("distance":"switch","megabits_per_second":-1}]})")),
      HasSubstr("workers[0].nics[0].megabits_per_second: expected an integer in 0..1000000"));
  EXPECT_EQ(ErrorOf(WithWorker(R"({"name":"a","node":"n","device":{"kind":"cpu"},"color":1})")),
            "workers[0].color: unknown field");
}

}  // namespace
}  // namespace annulus::ring
