// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metric_table.h"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace annulus::metrics {
namespace {

// Series of a metric at one daemon; a histogram has one per bucket, +Inf, sum and count.
size_t SeriesCount(const MetricSpec& spec, Daemon daemon) {
  size_t count = spec.type == MetricType::kHistogram ? spec.buckets.size() + 3 : 1;
  for (const MetricLabel& label : spec.labels) {
    if (label.values.empty()) continue;
    count *= static_cast<size_t>(
        std::count_if(label.values.begin(), label.values.end(),
                      [daemon](const LabelValue& v) { return Covers(v.daemons, daemon); }));
  }
  return Covers(spec.daemons, daemon) ? count : 0;
}

TEST(MetricTable, RowsStandInTheOrderOfTheirIds) {
  for (size_t i = 0; i < MetricTable().size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(MetricTable()[i].id), i) << MetricTable()[i].name;
  }
}

TEST(MetricTable, NamesFollowTheNamingRules) {
  std::set<std::string_view> names;
  for (const MetricSpec& spec : MetricTable()) {
    SCOPED_TRACE(std::string(spec.name));
    EXPECT_TRUE(names.insert(spec.name).second);
    EXPECT_TRUE(spec.name.starts_with("annulus_"));
    EXPECT_EQ(spec.name.ends_with("_total"), spec.type == MetricType::kCounter);
    EXPECT_FALSE(spec.help.empty());
    EXPECT_FALSE(spec.help.ends_with('.'));
    for (std::string_view unit : {"seconds", "bytes"}) {
      const bool named = spec.name.find(unit) != std::string_view::npos;
      EXPECT_EQ(named, spec.unit == unit);
    }
  }
}

TEST(MetricTable, LabelSetsAreClosedAndDistinct) {
  for (const MetricSpec& spec : MetricTable()) {
    SCOPED_TRACE(std::string(spec.name));
    for (const MetricLabel& label : spec.labels) {
      EXPECT_EQ(label.values.empty(), spec.id == MetricId::kBuildInfo);
      std::set<std::string_view> values;
      for (const LabelValue& value : label.values) EXPECT_TRUE(values.insert(value.text).second);
      EXPECT_NE(label.name, "session");
      EXPECT_NE(label.name, "request");
    }
  }
}

TEST(MetricTable, HistogramsAndOnlyTheyHaveBuckets) {
  for (const MetricSpec& spec : MetricTable()) {
    SCOPED_TRACE(std::string(spec.name));
    EXPECT_EQ(spec.buckets.empty(), spec.type != MetricType::kHistogram);
    EXPECT_TRUE(std::is_sorted(spec.buckets.begin(), spec.buckets.end()));
    for (double bound : spec.buckets) EXPECT_GT(bound, 0);
  }
}

TEST(MetricTable, KeepsToItsBudgetOfSeries) {
  for (Daemon daemon : {Daemon::kWorker, Daemon::kCoordinator}) {
    size_t series = 0;
    for (const MetricSpec& spec : MetricTable()) series += SeriesCount(spec, daemon);
    EXPECT_LE(series, 700u);
  }
}

TEST(FindLabelValue, FallsBackToOtherWhereThereIsOne) {
  const MetricLabel open = {"a", {{"x"}, {kOtherValue}, {"y"}}};
  EXPECT_EQ(FindLabelValue(open, "y"), 2u);
  EXPECT_EQ(FindLabelValue(open, "z"), 1u);
  EXPECT_EQ(FindLabelValue({"a", {{"x"}}}, "z"), std::nullopt);
}

}  // namespace
}  // namespace annulus::metrics
