// SPDX-License-Identifier: Apache-2.0
#include "client/cli/report.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace annulus::cli {
namespace {

RunResult ResultOf(bool backward) {
  RunResult result;
  for (int rank = 0; rank < 2; ++rank) {
    client::RankReport report;
    report.rank = rank;
    report.timing.compute_seconds = 1 + rank;  // mean 1.5
    report.timing.comm_seconds = 1;
    report.timing.exposed_comm_seconds = 0.25;
    report.timing.bytes_inner = 10;
    report.timing.bytes_outer = 5;
    report.timing.peak_bytes = static_cast<uint64_t>(100 + rank);
    report.steps = {{0, 1, 1, 0.25}};
    result.best.forward.ranks.push_back(report);
  }
  result.best.forward.wall_seconds = 2;
  result.best.forward.plan_digest = std::string(64, 'a');
  if (backward) result.best.backward = result.best.forward;
  result.wall_seconds = {2};
  return result;
}

TEST(ReportJson, HasTheDocumentedFieldsAndUnits) {
  const auto json = nlohmann::json::parse(ReportJson(RunFlags{}, ResultOf(false)));
  EXPECT_EQ(json["wall_seconds"], 2);
  EXPECT_EQ(json["compute_seconds"], 1.5);
  EXPECT_EQ(json["overlap_ratio"], 0.75);
  EXPECT_EQ(json["bytes_moved"]["inner"], 20);
  EXPECT_EQ(json["bytes_moved"]["outer"], 10);
  EXPECT_EQ(json["peak_bytes_per_worker"], 101);
  EXPECT_EQ(json["plan_digest"], std::string(64, 'a'));
  for (const char* name : {"relative_rmse", "lse_max_abs_error", "gradient_relative_rmse"}) {
    ASSERT_TRUE(json.contains(name));
    EXPECT_TRUE(json[name].is_null()) << "nothing was verified";
  }
}

TEST(ReportJson, SaysWhereTheTensorsLay) {
  RunResult result = ResultOf(false);
  result.memory.reason = "--client-memory host";
  auto json = nlohmann::json::parse(ReportJson(RunFlags{}, result));
  EXPECT_EQ(json["client_memory"]["place"], "host");
  EXPECT_EQ(json["client_memory"]["reason"], "--client-memory host");
  EXPECT_EQ(json["data_path"], "memfd");
  result.memory = {.devices = "apart 0 at 0000:00:00.0", .reason = ""};
  json = nlohmann::json::parse(ReportJson(RunFlags{}, result));
  EXPECT_EQ(json["client_memory"]["place"], "device");
  EXPECT_EQ(json["data_path"], "device");
  EXPECT_EQ(MemoryText(MemoryUsed{}), "") << "goes without saying";
}

TEST(ReportJson, BackwardAddsToTheSums) {
  const auto json = nlohmann::json::parse(ReportJson(RunFlags{}, ResultOf(true)));
  EXPECT_EQ(json["wall_seconds"], 4);
  EXPECT_EQ(json["compute_seconds"], 3.0);
  EXPECT_EQ(json["bytes_moved"]["inner"], 40);
  EXPECT_EQ(json["peak_bytes_per_worker"], 101);
}

TEST(ReportJson, AnInfiniteErrorIsNotTakenForNone) {
  RunResult result = ResultOf(false);
  result.verification = Verification{};
  result.verification->checks = {
      {"o", "relative RMSE", std::numeric_limits<double>::infinity(), 1e-6, 1, 1}};
  const auto json = nlohmann::json::parse(ReportJson(RunFlags{}, result));
  EXPECT_EQ(json["relative_rmse"], "inf");
  EXPECT_EQ(json["verification"]["passed"], false);
}

TEST(ReportText, SaysThatUnmovedDataGivesWrongResults) {
  RunFlags flags;
  flags.transfers_off = true;
  EXPECT_NE(ReportText(flags, ResultOf(false)).find("wrong by intent"), std::string::npos);
}

}  // namespace
}  // namespace annulus::cli
