// SPDX-License-Identifier: Apache-2.0
// A machine of two sockets, as hwloc would export it: a GPU and mlx5_0 behind one switch, eth0 at
// the same socket, mlx5_1 at the other.
#include "server/machine/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temp_folder.h"

namespace annulus::machine {
namespace {

using ring::NicDistance;
using testing::ElementsAre;
using testing::HasSubstr;

MachineOptions TwoSockets(const std::string& bus_id) {
  return {.bus_id = bus_id, .xml_path = ANNULUS_MACHINES "/two_sockets.xml", .sys_folder = "/none"};
}

TEST(Machine, KnowsHowFarEachAdapterIs) {
  const auto found = ReadSurroundings(TwoSockets("0000:1b:00.0"));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->numa_node, 0);
  EXPECT_THAT(found->nics, ElementsAre(ring::Nic{"eth0", NicDistance::kNuma, 0},
                                       ring::Nic{"mlx5_0", NicDistance::kSwitch, 0},
                                       ring::Nic{"mlx5_1", NicDistance::kAcross, 0}));
  EXPECT_THAT(found->gpus, ElementsAre("0000:1b:00.0"));
}

TEST(Machine, ADeviceThatIsNotThereIsNearNothing) {
  const auto lost = ReadSurroundings(TwoSockets("0000:77:00.0"));
  ASSERT_TRUE(lost.ok()) << lost.status();
  EXPECT_EQ(lost->numa_node, -1);
  for (const ring::Nic& nic : lost->nics) EXPECT_EQ(nic.distance, NicDistance::kAcross);
  const auto none = ReadSurroundings(TwoSockets(""));
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->nics.size(), 3u);
}

TEST(Machine, ReadsTheSpeedOfRdmaDevicesAndInterfaces) {
  const testing_support::TempFolder folder;
  const std::string sys = folder.path();
  std::filesystem::create_directories(sys + "/class/infiniband/mlx5_0/ports/1");
  std::ofstream(sys + "/class/infiniband/mlx5_0/ports/1/rate") << "400 Gb/sec (4X NDR)\n";
  std::filesystem::create_directories(sys + "/class/net/eth0");
  std::ofstream(sys + "/class/net/eth0/speed") << "25000\n";
  MachineOptions options = TwoSockets("0000:1b:00.0");
  options.sys_folder = sys;
  const auto found = ReadSurroundings(options);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->nics[0].megabits_per_second, 25'000);
  EXPECT_EQ(found->nics[1].megabits_per_second, 400'000);
}

TEST(Machine, SaysWhatCannotBeRead) {
  const auto found = ReadSurroundings({.xml_path = "/none.xml"});
  EXPECT_EQ(found.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("/none.xml"));
  EXPECT_TRUE(ReadSurroundings({}).ok());  // this machine, whatever it has
}

}  // namespace
}  // namespace annulus::machine
