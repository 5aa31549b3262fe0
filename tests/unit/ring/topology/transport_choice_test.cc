// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/transport_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/ring/topology/presets.h"
#include "server/ring/topology/topology.h"

namespace annulus::ring {
namespace {

using testing::HasSubstr;

std::vector<WorkerFacts> Preset(const char* name) { return PresetFacts(name).value(); }

// The best of a level, with why none was better.
absl::StatusOr<TransportChoice> Choose(Level level, const std::vector<WorkerFacts>& members,
                                       const std::string& asked = "") {
  const auto ranking = RankTransports(level, members, NodeNumbers(members), asked);
  if (!ranking.ok()) return ranking.status();
  if (ranking->candidates.empty()) return TransportChoice{"", ranking->none_because};
  const TransportCandidate& best = ranking->candidates.front();
  if (ranking->passed_over.empty()) return TransportChoice{best.name, best.reason};
  return TransportChoice{best.name, absl::StrCat(best.reason, "; ", ranking->passed_over)};
}

void Unload(const std::string& name, WorkerFacts* facts) {
  std::erase_if(facts->transports, [&](const LoadedTransport& t) { return t.name == name; });
}

TEST(TransportChoice, TakesTheBestThatTheFactsAllow) {
  const auto dgx = Preset("dgx-h100x4-nics8");
  EXPECT_EQ(Choose(Level::kInner, dgx)->name, "cuipc");
  EXPECT_EQ(Choose(Level::kOuter, dgx)->name, "nccl");
  EXPECT_THAT(Choose(Level::kOuter, dgx)->reason, HasSubstr("NCCL 2.28.9"));
  EXPECT_EQ(Choose(Level::kInner, Preset("two-gpus"))->name, "cuipc");
  EXPECT_EQ(Choose(Level::kInner, Preset("one-gpu"))->name, "cuipc");
  const auto pcie = Choose(Level::kInner, Preset("pcie-8"));
  EXPECT_EQ(pcie->name, "nccl");
  EXPECT_THAT(pcie->reason, HasSubstr("no peer access between n0-0 and n0-4"));
  EXPECT_EQ(Choose(Level::kInner, Preset("cpu-4"))->name, "host");
}

TEST(TransportChoice, OneCpuWorkerMeansHostMemory) {
  auto mixed = Preset("two-gpus");
  mixed.push_back(Preset("cpu-4").front());
  mixed.back().node = mixed.front().node;
  const auto choice = Choose(Level::kInner, mixed);
  EXPECT_EQ(choice->name, "host");
  EXPECT_THAT(choice->reason, HasSubstr("cpu-0 computes on the CPU"));
}

TEST(TransportChoice, DoesNotRelyOnWhatIsNotKnown) {
  auto gpus = Preset("two-gpus");
  for (WorkerFacts& facts : gpus) {
    facts.peers_known = false;
    facts.peers.clear();
  }
  const auto choice = Choose(Level::kInner, gpus);
  EXPECT_EQ(choice->name, "nccl");
  EXPECT_THAT(choice->reason, HasSubstr("peer access between n0-0 and n0-1 is not known"));
  // But a user may know better.
  EXPECT_EQ(Choose(Level::kInner, gpus, "cuipc")->name, "cuipc");
}

TEST(TransportChoice, VersionsThatDifferRuleNcclOut) {
  auto nodes = Preset("dgx-h100x4-nics8");
  for (WorkerFacts& facts : nodes) facts.transports.back().version = "";
  EXPECT_EQ(Choose(Level::kOuter, nodes)->name, "nccl");
  nodes[3].transports.back().version = "2.28.9";
  EXPECT_EQ(Choose(Level::kOuter, nodes)->name, "nccl");
  nodes[17].transports.back().version = "2.30.7";
  const auto choice = Choose(Level::kOuter, nodes);
  EXPECT_EQ(choice->name, "host");
  EXPECT_THAT(choice->reason, HasSubstr("n0-3 has NCCL 2.28.9, n2-1 has 2.30.7"));
}

TEST(TransportChoice, RanksThatShareAGpuRuleNcclOut) {
  auto shared = Preset("one-gpu");
  for (WorkerFacts& facts : shared) Unload("cuipc", &facts);
  const auto choice = Choose(Level::kInner, shared);
  EXPECT_EQ(choice->name, "host");
  EXPECT_THAT(choice->reason, HasSubstr("not loaded by n0-0, n0-1, n0-2 and 1 more"));
  EXPECT_THAT(choice->reason, HasSubstr("n0-0 and n0-1 share a GPU"));
}

TEST(TransportChoice, RefusesWhatCannotBeHadAndSaysWhatIsMissing) {
  auto nodes = Preset("dgx-h100x4-nics4");
  absl::Status status = Choose(Level::kOuter, nodes, "cuipc").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("n0-0 and n1-0 are on different hosts"));
  EXPECT_EQ(GetFaultInfo(status)->reason, "TRANSPORT_UNAVAILABLE");
  Unload("nccl", &nodes[9]);
  status = Choose(Level::kOuter, nodes, "nccl").status();
  EXPECT_THAT(status.message(), HasSubstr("not loaded by n1-1"));
  status = Choose(Level::kInner, Preset("cpu-4"), "nccl").status();
  EXPECT_THAT(status.message(), HasSubstr("cpu-0 computes on the CPU"));
  status = Choose(Level::kInner, nodes, "ucx").status();
  EXPECT_THAT(status.message(), HasSubstr("'ucx' was asked for, but not loaded by n0-0"));
  EXPECT_EQ(Choose(Level::kInner, nodes, "host")->reason, "asked for");
}

TEST(TransportChoice, AnotherTransportServesWhereAllHaveIt) {
  auto workers = Preset("cpu-4");
  for (WorkerFacts& facts : workers) facts.transports = {{"zeta", ""}, {"ucx", ""}};
  EXPECT_EQ(Choose(Level::kInner, workers)->name, "ucx");
  workers[2].transports = {{"host", ""}};
  const absl::Status status = Choose(Level::kInner, workers).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("none that all members have loaded"));
}

TEST(TransportChoice, NothingToChooseWithoutHopsOrWithoutWord) {
  EXPECT_EQ(Choose(Level::kOuter, Preset("cpu-4"))->name, "");
  auto workers = Preset("cpu-4");
  for (WorkerFacts& facts : workers) facts.transports.clear();
  EXPECT_EQ(Choose(Level::kInner, workers)->name, "");
  EXPECT_FALSE(Choose(Level::kInner, workers, "host").ok());
}

TEST(TransportChoice, AForcedTransportThatNoHopTakesIsRefused) {
  const absl::Status status = Choose(Level::kOuter, Preset("cpu-4"), "host").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("all ranks are on one node: there is no hop to take it"));
}

TEST(TransportChoice, ProcessesApartRuleCuipcOut) {
  auto gpus = Preset("two-gpus");
  gpus[0].ipc_scope = "uid 0, net:[1], pid:[1]";
  EXPECT_EQ(Choose(Level::kInner, gpus)->name, "cuipc");
  gpus[1].ipc_scope = "uid 0, net:[1], pid:[2]";
  const auto choice = Choose(Level::kInner, gpus);
  EXPECT_EQ(choice->name, "nccl");
  EXPECT_THAT(choice->reason, HasSubstr("n0-0 and n0-1 may not open each other's memory"));
  EXPECT_FALSE(Choose(Level::kInner, gpus, "cuipc").ok());
}

TEST(TransportChoice, PartsOfOneGpuAreNotTakenToReachEachOther) {
  auto shared = Preset("one-gpu");
  for (WorkerFacts& facts : shared) facts.partitioned = true;
  const auto choice = Choose(Level::kInner, shared);
  EXPECT_EQ(choice->name, "host");
  EXPECT_THAT(choice->reason, HasSubstr("peer access between n0-0 and n0-1 is not known"));
  EXPECT_EQ(Choose(Level::kInner, shared, "cuipc")->name, "cuipc");
}

// A worker in a container sees some of the GPUs alone.
TEST(TransportChoice, AGpuThatAWorkerDoesNotSeeIsNotKnown) {
  auto gpus = Preset("two-gpus");
  for (WorkerFacts& facts : gpus) facts.peers_known = false;
  EXPECT_EQ(Choose(Level::kInner, gpus)->name, "cuipc") << "what is named is known";
  gpus[0].peers.clear();
  EXPECT_EQ(Choose(Level::kInner, gpus)->name, "cuipc") << "the other one knows";
  gpus[1].peers.clear();
  EXPECT_EQ(Choose(Level::kInner, gpus)->name, "nccl");
}

}  // namespace
}  // namespace annulus::ring
