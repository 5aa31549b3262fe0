// SPDX-License-Identifier: Apache-2.0
#include "client/src/request_id.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace annulus::client {
namespace {

TEST(RequestId, IsAUuid4AndNeverTheSame) {
  std::set<std::string> seen, heads, tails;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = NewRequestId();
    EXPECT_THAT(id, testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-"
                                          "[0-9a-f]{12}"));
    EXPECT_TRUE(seen.insert(id).second);
    heads.insert(id.substr(0, 8));
    tails.insert(id.substr(24));
  }
  EXPECT_GT(heads.size(), 990u);
  EXPECT_GT(tails.size(), 990u);
}

TEST(CollectiveRequestId, IsAgreedAndTellsEverythingApart) {
  EXPECT_EQ(CollectiveRequestId("g", "j", 3, 4), CollectiveRequestId("g", "j", 3, 4));
  const std::set<std::string> ids{
      CollectiveRequestId("g", "j", 3, 4), CollectiveRequestId("h", "j", 3, 4),
      CollectiveRequestId("g", "k", 3, 4), CollectiveRequestId("g", "j", 4, 4),
      CollectiveRequestId("g", "j", 3, 5), CollectiveRequestId("gj", "", 3, 4)};
  EXPECT_EQ(ids.size(), 6u);
}

TEST(CollectiveRequestId, FitsTheProtocol) {
  const std::string id =
      CollectiveRequestId(std::string(63, 'g'), std::string(500, '\n'), ~0ull, ~0ull);
  EXPECT_LE(id.size(), 64u);
  EXPECT_THAT(id, testing::MatchesRegex("[A-Za-z0-9._-]+"));
}

}  // namespace
}  // namespace annulus::client
