// SPDX-License-Identifier: Apache-2.0
#include "client/cli/units.h"

#include <gtest/gtest.h>

namespace annulus::cli {
namespace {

TEST(Units, RatesTimesAndAmounts) {
  EXPECT_DOUBLE_EQ(*ParseRate("2GB/s"), 2e9);
  EXPECT_DOUBLE_EQ(*ParseRate("1.5MiB/s"), 1.5 * 1048576);
  EXPECT_DOUBLE_EQ(*ParseSeconds("20us"), 20e-6);
  EXPECT_DOUBLE_EQ(*ParseSeconds("30"), 30);
  EXPECT_EQ(*ParseBytes("1MiB"), 1048576u);
  EXPECT_EQ(*ParseBytes("4096"), 4096u);
}

TEST(Units, NonsenseIsRefusedWithWhatWasGot) {
  for (const char* text :
       {"", "2GB", "GB/s", "-1GB/s", "0GB/s", "nanGB/s", "1e999GB/s", "2 GB/s"}) {
    const auto rate = ParseRate(text);
    EXPECT_TRUE(absl::IsInvalidArgument(rate.status())) << text;
    EXPECT_NE(rate.status().message().find(text), absl::string_view::npos);
  }
  EXPECT_FALSE(ParseSeconds("-1s").ok());
  EXPECT_FALSE(ParseSeconds("5 parsecs").ok());
  EXPECT_FALSE(ParseBytes("0").ok());
  EXPECT_FALSE(ParseBytes("1e300").ok());
}

TEST(Units, EmulatedLinks) {
  const auto links = ParseEmulatedLinks("inner=2GB/s,outer=200MB/s,latency=20us");
  ASSERT_TRUE(links.ok());
  EXPECT_DOUBLE_EQ(links->inner.bytes_per_second, 2e9);
  EXPECT_DOUBLE_EQ(links->outer.bytes_per_second, 2e8);
  EXPECT_DOUBLE_EQ(links->inner.latency_seconds, 20e-6);
  EXPECT_DOUBLE_EQ(links->outer.latency_seconds, 20e-6);
  for (const char* text : {"inner", "inner=2GB/s,inner=1GB/s", "middle=1GB/s", "inner=2", ""}) {
    EXPECT_FALSE(ParseEmulatedLinks(text).ok()) << text;
  }
}

}  // namespace
}  // namespace annulus::cli
