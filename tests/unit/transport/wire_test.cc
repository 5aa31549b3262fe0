// SPDX-License-Identifier: Apache-2.0
#include "gtest/gtest.h"
#include "server/transport/pacing/pacing.h"

namespace annulus::transport {
namespace {

TEST(WireTest, CarriesOneTransferAfterTheOther) {
  Wire wire({.bytes_per_second = 1e9, .latency_seconds = 5e-6});
  EXPECT_EQ(wire.TransferNs(1000), 1000);
  EXPECT_EQ(wire.latency_ns(), 5000);
  EXPECT_EQ(wire.Reserve(100, 1000), 100);
  EXPECT_EQ(wire.Reserve(200, 50), 1100) << "busy until then";
  EXPECT_EQ(wire.Reserve(5000, 1), 5000) << "idle in between";
}

TEST(WireTest, APostponedTransferHoldsTheWireLonger) {
  Wire wire({.bytes_per_second = 1e9});
  wire.Reserve(0, 1000);
  wire.Postpone(500, 1000);
  EXPECT_EQ(wire.Reserve(0, 1), 1500);
  wire.Postpone(10, 10);
  EXPECT_EQ(wire.Reserve(0, 1), 1501) << "never freed early";
}

TEST(WireTest, ARateOfZeroIsNoWire) {
  const Wire wire;
  EXPECT_FALSE(wire.emulated());
  EXPECT_EQ(wire.TransferNs(1'000'000), 0);
}

TEST(PacingModelTest, LevelsFollowTheNodes) {
  PacingModel model;
  model.ranks_per_node = 2;
  EXPECT_EQ(LevelBetween(model, 0, 1), ANNULUS_LEVEL_INNER);
  EXPECT_EQ(LevelBetween(model, 1, 2), ANNULUS_LEVEL_OUTER);
  model.nodes = {5, 6, 5};
  EXPECT_EQ(LevelBetween(model, 0, 2), ANNULUS_LEVEL_INNER);
  EXPECT_EQ(LevelBetween(model, 0, 1), ANNULUS_LEVEL_OUTER);
}

}  // namespace
}  // namespace annulus::transport
