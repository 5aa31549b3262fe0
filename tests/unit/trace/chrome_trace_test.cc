// SPDX-License-Identifier: Apache-2.0
#include "client/trace/chrome_trace.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace annulus::trace {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

Op MakeOp(OpKind kind, int step, int64_t start_ns, int64_t end_ns, Level level = Level::kInner,
          int peer = -1, uint64_t bytes = 0, const std::string& label = "") {
  return {kind, step, level, peer, start_ns, end_ns, bytes, label};
}

// Every kind of op, hops of one ring that overlap each other, and names that need escaping.
Trace MakeTrace() {
  Trace trace;
  trace.title = "double ring \"4\" \\ two";
  trace.metadata = {{"plan_digest", "abc"}, {"flags", "--backward\n"}};
  trace.ranks.push_back({0,
                         "worker-0",
                         "node-a",
                         0.75,
                         {MakeOp(OpKind::kCopy, 0, 0, 500, Level::kInner, -1, 0, "upload"),
                          MakeOp(OpKind::kPrepare, 0, 500, 1001),
                          MakeOp(OpKind::kCompute, 0, 1001, 5000, Level::kInner, -1, 0, "own"),
                          MakeOp(OpKind::kReceive, 0, 1200, 4000, Level::kInner, 1, 4096, "kv"),
                          MakeOp(OpKind::kReceive, 0, 1500, 4500, Level::kInner, 1, 4096, "dkv"),
                          MakeOp(OpKind::kReceive, 0, 1500, 6500, Level::kOuter, 2, 4096, "kv"),
                          MakeOp(OpKind::kWait, 0, 5000, 6500, Level::kOuter, 2),
                          MakeOp(OpKind::kFinish, 1, 6500, 6500)}});
  trace.ranks.push_back(
      {3, "worker-3", "", {}, {MakeOp(OpKind::kSend, 0, 10, 20, Level::kInner, 0, 1, "kv")}});
  return trace;
}

std::string Refusal(const std::string& json) {
  const auto parsed = ParseChromeTrace(json);
  if (parsed.ok()) return "";
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

TEST(ChromeTrace, ReadsBackWhatItWrote) {
  const testing_support::TempFolder folder;
  const Trace trace = MakeTrace();
  ASSERT_TRUE(WriteChromeTrace(folder.File("x.json"), trace).ok());
  const auto read = ReadChromeTrace(folder.File("x.json"));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->title, trace.title);
  EXPECT_EQ(read->metadata, trace.metadata);
  ASSERT_EQ(read->ranks.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read->ranks[i].worker, trace.ranks[i].worker);
    EXPECT_EQ(read->ranks[i].node, trace.ranks[i].node);
    EXPECT_EQ(read->ranks[i].overlap, trace.ranks[i].overlap);
    EXPECT_THAT(read->ranks[i].ops, ::testing::UnorderedElementsAreArray(trace.ranks[i].ops));
  }
}

TEST(ChromeTrace, TimesCountFromTheFirstOp) {
  Trace trace = MakeTrace();
  const int64_t uptime_ns = 12'345'678'901'234'567;
  for (RankTrace& rank : trace.ranks) {
    for (Op& op : rank.ops) {
      op.start_ns += uptime_ns;
      op.end_ns += uptime_ns;
    }
  }
  EXPECT_EQ(ToChromeTrace(trace), ToChromeTrace(MakeTrace()));
}

// What viewers need: complete events, tracks with names, and no two events of a track overlapping.
TEST(ChromeTrace, IsWhatViewersOpen) {
  const Json root = Json::parse(ToChromeTrace(MakeTrace()));
  std::map<std::pair<int, int>, std::string> tracks;
  std::map<int, std::string> processes;
  std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> spans;
  for (const Json& event : root.at("traceEvents")) {
    const std::pair<int, int> track = {event.at("pid"), event.at("tid")};
    if (event.at("ph") == "M") {
      if (event.at("name") == "thread_name") tracks[track] = event.at("args").at("name");
      if (event.at("name") == "process_name") processes[track.first] = event.at("args").at("name");
      continue;
    }
    ASSERT_EQ(event.at("ph"), "X");
    spans[track].emplace_back(event.at("ts"), event.at("dur"));
  }
  EXPECT_EQ(processes.at(0), "rank 0  worker-0 on node-a");
  std::set<std::string> names;
  for (auto& [track, intervals] : spans) {
    ASSERT_TRUE(tracks.contains(track));
    if (track.first == 0) names.insert(tracks.at(track));
    std::sort(intervals.begin(), intervals.end());
    for (size_t i = 1; i < intervals.size(); ++i) {
      EXPECT_LE(intervals[i - 1].first + intervals[i - 1].second, intervals[i].first + 1e-9);
    }
  }
  EXPECT_THAT(names, ::testing::ElementsAre("compute", "receive inner", "receive inner (2)",
                                            "receive outer", "wait"));
}

TEST(ChromeTrace, UnitsAreMicroseconds) {
  const Json root = Json::parse(ToChromeTrace(MakeTrace()));
  bool found = false;
  for (const Json& event : root.at("traceEvents")) {
    if (event.value("name", "") != "dkv from rank 1") continue;
    found = true;
    EXPECT_DOUBLE_EQ(event.at("ts"), 1.5);
    EXPECT_DOUBLE_EQ(event.at("dur"), 3.0);
    EXPECT_EQ(event.at("args"), Json::parse(R"({"bytes":4096,"label":"dkv","level":"inner",)"
                                            R"("peer":1,"step":0})"));
  }
  EXPECT_TRUE(found);
}

TEST(ChromeTrace, PassesOverEventsOfOthers) {
  Json root = Json::parse(ToChromeTrace(MakeTrace()));
  root["traceEvents"].push_back({{"ph", "C"}, {"name", "memory"}});
  root["traceEvents"].push_back({{"ph", "X"}, {"cat", "python"}, {"name", "f"}});
  const auto read = ParseChromeTrace(root.dump());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->ranks[0].ops.size(), MakeTrace().ranks[0].ops.size());
}

TEST(ChromeTrace, RefusesWhatItDidNotWrite) {
  EXPECT_THAT(Refusal("{"), HasSubstr("not JSON"));
  EXPECT_THAT(Refusal("[]"), HasSubstr("expected an object"));
  EXPECT_THAT(Refusal(R"({"traceEvents":[]})"), HasSubstr("otherData must be an object"));
  EXPECT_THAT(Refusal(R"({"otherData":{"schema":"other.v1"}})"),
              HasSubstr("schema 'other.v1', expected 'annulus.trace.v1'"));
  EXPECT_THAT(Refusal(std::string(100'000, '[')), HasSubstr("nested deeper than 8"));
  EXPECT_THAT(Refusal(std::string(kTraceBytesMax + 1, ' ')), HasSubstr("bytes, expected at most"));
}

TEST(ChromeTrace, RefusesEventsThatAreIncomplete) {
  const auto with_event = [](const std::string& change) {
    Json root = Json::parse(ToChromeTrace(MakeTrace()));
    root["traceEvents"] =
        Json::array({Json::parse(R"({"ph":"X","cat":"wait","pid":0,"tid":1,"ts":1,"dur":1,)"
                                 R"("args":{"step":0,"label":"","level":"inner","peer":1}})")});
    root["traceEvents"][0].merge_patch(Json::parse(change));
    return root.dump();
  };
  EXPECT_EQ(Refusal(with_event("{}")), "");
  EXPECT_THAT(Refusal(with_event(R"({"ts":null})")), HasSubstr("traceEvents[0]: ts"));
  EXPECT_THAT(Refusal(with_event(R"({"dur":-1})")), HasSubstr("dur is -1"));
  EXPECT_THAT(Refusal(with_event(R"({"ts":1e300})")), HasSubstr("ts is 1e+300"));
  EXPECT_THAT(Refusal(with_event(R"({"pid":9})")), HasSubstr("rank 9 is not in"));
  EXPECT_THAT(Refusal(with_event(R"({"pid":99999999999})")), HasSubstr("pid is 99999999999"));
  EXPECT_THAT(Refusal(with_event(R"({"args":{"level":"middle"}})")), HasSubstr("args: level"));
  EXPECT_THAT(Refusal(with_event(R"({"args":{"step":"a"}})")), HasSubstr("args: step"));
  EXPECT_THAT(Refusal(with_event(R"({"args":{"bytes":-1}})")), HasSubstr("args: bytes"));
}

TEST(AssignLanes, UsesAsFewAsNeededAndNoneTwice) {
  const std::vector<Op> ops = {MakeOp(OpKind::kSend, 0, 0, 10), MakeOp(OpKind::kSend, 0, 5, 15),
                               MakeOp(OpKind::kSend, 0, 10, 20), MakeOp(OpKind::kSend, 0, 12, 13),
                               MakeOp(OpKind::kSend, 0, 15, 16)};
  std::vector<const Op*> pointers;
  for (const Op& op : ops) pointers.push_back(&op);
  EXPECT_EQ(AssignLanes(pointers), (std::vector<int>{0, 1, 0, 2, 1}));
  EXPECT_TRUE(AssignLanes({}).empty());
}

}  // namespace
}  // namespace annulus::trace
