// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/nic_assignment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "server/ring/topology/min_cost_assignment.h"
#include "server/ring/topology/presets.h"

namespace annulus::ring {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> NicsOf(const std::vector<WorkerFacts>& members) {
  std::vector<std::string> names;
  for (const NicChoice& choice : AssignNics(members)) names.push_back(choice.nic);
  return names;
}

TEST(MinCostAssignment, IsAsCheapAsTheBestOfAllAssignments) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    const size_t rows = 1 + random() % 5;
    const size_t columns = rows + random() % 3;
    std::vector<std::vector<int64_t>> costs(rows, std::vector<int64_t>(columns));
    for (auto& row : costs) {
      for (int64_t& cost : row) cost = static_cast<int64_t>(random() % 20);
    }
    std::vector<size_t> order(columns);
    std::iota(order.begin(), order.end(), 0);
    int64_t best = 1000;
    do {
      int64_t sum = 0;
      for (size_t row = 0; row < rows; ++row) sum += costs[row][order[row]];
      best = std::min(best, sum);
    } while (std::next_permutation(order.begin(), order.end()));
    const std::vector<int> found = MinCostAssignment(costs);
    int64_t sum = 0;
    std::vector<bool> used(columns);
    for (size_t row = 0; row < rows; ++row) {
      const auto column = static_cast<size_t>(found[row]);
      EXPECT_FALSE(used[column]);
      used[column] = true;
      sum += costs[row][column];
    }
    EXPECT_EQ(sum, best);
  }
}

TEST(AssignNics, TwoGpusShareEachOfFourAdapters) {
  auto node = PresetFacts("dgx-h100x4-nics4").value();
  node.resize(8);
  EXPECT_THAT(NicsOf(node), ElementsAre("mlx5_0", "mlx5_0", "mlx5_1", "mlx5_1", "mlx5_2", "mlx5_2",
                                        "mlx5_3", "mlx5_3"));
  EXPECT_THAT(AssignNics(node)[5].reason, HasSubstr("same switch, serves 2 GPUs"));
}

TEST(AssignNics, NoneIsIdleThoughAllGpusAreNearAnother) {
  auto node = PresetFacts("dgx-h100x4-nics4").value();
  node.resize(6);
  for (WorkerFacts& facts : node) {
    for (Nic& nic : facts.nics) {
      nic.distance = nic.name == "mlx5_2" ? NicDistance::kSwitch : NicDistance::kAcross;
    }
  }
  const std::vector<std::string> nics = NicsOf(node);
  EXPECT_EQ(std::count(nics.begin(), nics.end(), "mlx5_2"), 2);
  for (const char* other : {"mlx5_0", "mlx5_1", "mlx5_3"}) {
    EXPECT_GE(std::count(nics.begin(), nics.end(), other), 1) << other;
  }
}

TEST(AssignNics, SlowAdaptersAndThoseThatSomeDoNotSeeAreLeftOut) {
  auto gpus = PresetFacts("two-gpus").value();
  for (WorkerFacts& facts : gpus) {
    facts.nics.push_back({"eth0", NicDistance::kSwitch, 25'000});
  }
  EXPECT_THAT(NicsOf(gpus), ElementsAre("mlx5_0", "mlx5_0"));
  gpus[0].nics.clear();
  EXPECT_THAT(NicsOf(gpus), ElementsAre("", ""));
  EXPECT_THAT(AssignNics(gpus)[1].reason, HasSubstr("every GPU of this node reports"));
}

TEST(AssignNics, WorkersOfOneGpuHaveItsAdapterAndCpuWorkersNone) {
  EXPECT_THAT(NicsOf(PresetFacts("one-gpu").value()),
              ElementsAre("mlx5_0", "mlx5_0", "mlx5_0", "mlx5_0"));
  EXPECT_THAT(AssignNics(PresetFacts("one-gpu").value())[0].reason, HasSubstr("serves 1 GPU;"));
  EXPECT_THAT(NicsOf(PresetFacts("cpu-4").value()), ElementsAre("", "", "", ""));
}

}  // namespace
}  // namespace annulus::ring
