// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/property/coordinator/world.h"
#include "tests/support/under_sanitizer.h"

namespace annulus::coordinator {
namespace {

// ANNULUS_SEED=n runs that seed alone; ANNULUS_SEEDS=n that many.
uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(Simulation, NothingForbiddenHappensAndEverythingHeals) {
  const uint64_t one = FromEnvironment("ANNULUS_SEED", 0);
  const uint64_t first = one != 0 ? one : 1;
  const uint64_t last =
      one != 0 ? one : FromEnvironment("ANNULUS_SEEDS", kUnderSanitizer ? 60 : 1'000);
  std::map<std::string, int> happened;
  for (uint64_t seed = first; seed <= last; ++seed) {
    World world(seed, static_cast<int>(2 + seed % 5));
    for (int round = 0; round < 2; ++round) {
      world.Storm(15'000);
      ASSERT_EQ(world.breach, "") << "ANNULUS_SEED=" << seed;
      // Longest: back-off, a phase that a stuck worker had begun, a call's deadline.
      world.Calm(20'000);
      ASSERT_EQ(world.breach, "") << "ANNULUS_SEED=" << seed;
      ASSERT_EQ(world.Unsettled(), "") << "ANNULUS_SEED=" << seed;
    }
    for (const auto& [what, times] : world.happened) happened[what] += times;
  }
  if (one != 0) return;
  for (const char* rare : {"killed", "stopped", "two streams", "reported", "paused", "deleted",
                           "cancelled", "answered ready", "answered with an error", "WORKER_LOST",
                           "WORKER_SILENT", "PEER_UNREACHABLE", "REQUEST_FAILED", "SETUP_FAILED"}) {
    EXPECT_GT(happened[rare], 0) << rare << " never happened: the storm proves nothing of it";
  }
}

}  // namespace
}  // namespace annulus::coordinator
