// SPDX-License-Identifier: Apache-2.0
#include "server/apps/term.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace annulus::apps {
namespace {

class Term : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "annulus-term-" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  void Store(const std::string& text) { std::ofstream(path_) << text; }
  std::string Stored() {
    std::string text;
    std::ifstream(path_) >> text;
    return text;
  }

  std::string path_;
};

TEST_F(Term, IsTheClockAndIsWrittenBeforeItIsUsed) {
  const auto without = NextTerm("");
  ASSERT_TRUE(without.ok());
  EXPECT_GT(*without, 1'700'000'000'000u);
  const auto with = NextTerm(path_);
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_GE(*with, *without);
  EXPECT_EQ(Stored(), std::to_string(*with));
}

TEST_F(Term, GrowsThoughTheClockWentBackAndLeavesRoomForEpochs) {
  const uint64_t future = 4'000'000'000'000;
  Store(std::to_string(future) + "\n");
  const auto first = NextTerm(path_);
  const auto second = NextTerm(path_);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_GE(*first, future + 1'000'000);
  EXPECT_GE(*second, *first + 1'000'000);
}

TEST_F(Term, AFileThatIsNoTermIsRefusedAndLeftAlone) {
  for (const char* text : {"", "abc", "-1", "99999999999999999999"}) {
    Store(text);
    const auto term = NextTerm(path_);
    EXPECT_EQ(term.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(term.status().message()), testing::HasSubstr(path_));
    EXPECT_EQ(Stored(), text);
  }
}

TEST_F(Term, AFileThatCannotBeWrittenStopsTheStart) {
  EXPECT_FALSE(NextTerm("/no/such/folder/term").ok());
}

}  // namespace
}  // namespace annulus::apps
