// SPDX-License-Identifier: Apache-2.0
#include "server/apps/cpu_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace annulus::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(CpuList, ReadsWhatTasksetReads) {
  EXPECT_THAT(*ParseCpuList("0"), ElementsAre(0));
  EXPECT_THAT(*ParseCpuList("3,0,7-9"), ElementsAre(3, 0, 7, 8, 9));
  EXPECT_THAT(*ParseCpuList("5-5"), ElementsAre(5));
}

TEST(CpuList, RefusesTheRestAndSaysWhat) {
  for (const char* text : {"", ",", "0,", "-1", "1-", "-", "3-2", "a", "0-2,1", "1024",
                           "0-99999999", "1-2-3", "4 4", "99999999999999999999"}) {
    const auto cpus = ParseCpuList(text);
    ASSERT_FALSE(cpus.ok()) << text;
    EXPECT_EQ(cpus.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(cpus.status().message()), HasSubstr("0,2-3"));
  }
}

}  // namespace
}  // namespace annulus::apps
