// SPDX-License-Identifier: Apache-2.0
#include "client/cli/visible_gpus.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_folder.h"

namespace annulus::cli {
namespace {

TEST(VisibleGpus, TheVariableSaysWhatIsSeen) {
  EXPECT_EQ(VisibleGpus("0,1,2", "/nowhere"), 3);
  EXPECT_EQ(VisibleGpus("GPU-a1, MIG-b2", "/nowhere"), 2);
  EXPECT_EQ(VisibleGpus("0,-1,1", "/nowhere"), 1);
  EXPECT_EQ(VisibleGpus("", "/nowhere"), 0);
  EXPECT_EQ(VisibleGpus("-1", "/nowhere"), 0);
}

TEST(VisibleGpus, ElseTheDevicesAreCounted) {
  const testing_support::TempFolder folder;
  for (const char* name : {"nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm", "null"}) {
    std::ofstream(folder.path() + "/" + name) << "";
  }
  EXPECT_EQ(VisibleGpus(nullptr, folder.path()), 3);
  EXPECT_EQ(VisibleGpus(nullptr, folder.path() + "/nowhere"), 0);
}

}  // namespace
}  // namespace annulus::cli
