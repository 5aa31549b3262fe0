// SPDX-License-Identifier: Apache-2.0
#include "server/base/plugin_library.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "kernels/compute_plugin.h"
#include "server/transport/transport_plugin.h"

namespace annulus {

// Linked into this program and exported: what STATIC_PLUGIN finds.
extern "C" {
struct TestTable {
  size_t struct_size;
  int value;
};
extern const TestTable annulusTest_v1;
const TestTable annulusTest_v1 = {sizeof(TestTable), 41};
}

namespace {

TEST(PluginLibraryTest, FindsByPathAndByName) {
  for (const std::string& selection : {std::string(ANNULUS_CPU_PLUGIN_PATH), std::string("cpu")}) {
    const auto library = PluginLibrary::Load("compute", selection);
    ASSERT_TRUE(library.ok()) << library.status();
    const auto table = library->Find<annulusComputeV1>(ANNULUS_COMPUTE_V1_SYMBOL);
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_STREQ((*table)->name, "cpu");
  }
}

TEST(PluginLibraryTest, TheEnvironmentDecidesWhereNothingIsSaid) {
  ASSERT_EQ(setenv("ANNULUS_COMPUTE_PLUGIN", "cpu", 1), 0);
  EXPECT_TRUE(PluginLibrary::Load("compute", "").ok());
  ASSERT_EQ(unsetenv("ANNULUS_COMPUTE_PLUGIN"), 0);
  const auto none = PluginLibrary::Load("compute", "");
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(none.status().message().find("ANNULUS_COMPUTE_PLUGIN"), absl::string_view::npos);
}

TEST(PluginLibraryTest, ErrorsListWhatWasTried) {
  const auto missing = PluginLibrary::Load("transport", "nosuch");
  ASSERT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  const std::string text(missing.status().message());
  EXPECT_NE(text.find("/../lib/libannulus-transport-nosuch.so"), std::string::npos) << text;
  EXPECT_EQ(PluginLibrary::Load("transport", "no name").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PluginLibrary::Load("transport", "/nonexistent/x.so").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(PluginLibraryTest, AnotherKindsLibraryHasNoSuchTable) {
  const auto library = PluginLibrary::Load("compute", "cpu");
  ASSERT_TRUE(library.ok()) << library.status();
  const auto table = library->Find<annulusTransportV1>(ANNULUS_TRANSPORT_V1_SYMBOL);
  EXPECT_EQ(table.status().code(), absl::StatusCode::kNotFound);
}

TEST(PluginLibraryTest, StaticPluginsAreNegotiatedNewestFirst) {
  const auto library = PluginLibrary::Load("compute", "STATIC_PLUGIN");
  ASSERT_TRUE(library.ok()) << library.status();
  const char* const symbols[] = {"annulusTest_v2", "annulusTest_v1"};
  const auto newest = library->FindNewest(symbols);
  ASSERT_TRUE(newest.ok()) << newest.status();
  EXPECT_EQ(newest->version, 1u);
  EXPECT_EQ((*library->Find<TestTable>("annulusTest_v1"))->value, 41);
  struct LargerTable {
    size_t struct_size;
    int value[100];
  };
  const auto small = library->Find<LargerTable>("annulusTest_v1");
  EXPECT_EQ(small.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(PluginLibraryTest, AnEmptyLibraryFindsNothing) {
  EXPECT_FALSE(PluginLibrary().Find<TestTable>("annulusTest_v1").ok());
}

}  // namespace
}  // namespace annulus
