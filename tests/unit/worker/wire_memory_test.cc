// SPDX-License-Identifier: Apache-2.0
// Slabs and transports: each slab is registered once with each transport, whichever came first, and
// taken back before it is freed; nothing else is sent from or received into.

#include "server/worker/wire_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/apart/apart_plugin.h"
#include "tests/support/apart/apart_transport.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/worker/registering_transport.h"
#include "tests/unit/worker/run_both.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

using ::testing::HasSubstr;
using testing_support::ApartPlugin;
using testing_support::ApartTransport;

class WireMemoryTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { transport_ = Registering::Over(apart() ? ApartTransport() : nullptr); }
  bool apart() const { return GetParam(); }
  TestRing::Options Options() const {
    TestRing::Options options;
    options.size = 3;
    if (apart()) options.compute = ApartPlugin();
    options.transports = {transport_};
    return options;
  }

  const annulusTransportV1* transport_ = nullptr;
};

// One forward of each rank; whether all went well.
bool Runs(TestRing& ring, const std::string& request_id, int64_t length = 64,
          std::string* why = nullptr) {
  Problem problem;
  problem.query_length = problem.kv_length = length;
  problem.size = ring.size();
  const ring::Plan plan = PlanOf(problem, ring::Direction::kForward, false);
  const std::string digest = ring.AddPlan(plan);
  const Tensors tensors(problem, plan);
  ring.AddRegion(1, tensors.memory());
  bool ok = true;
  for (const auto& answer : ring.Attend(tensors.Forward(ring, digest, request_id))) {
    if (why != nullptr && !answer.ok()) *why += std::string(answer.status().message()) + "\n";
    ok = ok && answer.ok();
  }
  return ok;
}

TEST_P(WireMemoryTest, EverythingSentAndReceivedIsRegistered) {
  TestRing ring(Options());
  RunEveryKind(ring, kUnderSanitizer ? 3 : 1);
  EXPECT_EQ(Registering::faults(), "");
}

TEST_P(WireMemoryTest, ASlabIsRegisteredOnceWithATransportThroughItsLife) {
  {
    TestRing ring(Options());
    EXPECT_TRUE(Runs(ring, "first"));
    const int first = Registering::registered();
    EXPECT_GT(first, 0);
    EXPECT_TRUE(Runs(ring, "second"));  // with the memory of the first
    EXPECT_EQ(Registering::registered(), first);

    const int held = Registering::held();
    FaultVerdict verdict;
    verdict.group = "g";
    verdict.epoch = ring.epoch();
    for (int rank = 0; rank < ring.size(); ++rank) ring.engine(rank).FaultGroup(verdict);
    EXPECT_FALSE(Runs(ring, "third"));
    ring.Form(ring.epoch() + 1);
    // What was there is told to each rank's new transport, before it connects.
    EXPECT_EQ(Registering::registered(), first + held);
    EXPECT_TRUE(Runs(ring, "fourth"));
    EXPECT_EQ(Registering::registered(), first + held);
  }
  EXPECT_EQ(Registering::held(), 0);
  EXPECT_EQ(Registering::faults(), "");
}

TEST_P(WireMemoryTest, MemoryThatGoesIsDeregisteredFirst) {
  TestRing::Options options = Options();
  options.memory_limit_bytes = uint64_t{512} << 10;  // of which a quarter is kept when idle
  TestRing ring(options);
  for (int64_t length = 96; length <= 576; length += 96) {
    EXPECT_TRUE(Runs(ring, std::to_string(length), length));
  }
  EXPECT_LT(Registering::held(), Registering::registered());
  EXPECT_EQ(Registering::faults(), "");
}

// A rank whose memory is not registered would have its peers wait: the epoch ends, the worker
// lives.
TEST_P(WireMemoryTest, ARefusedRegistrationEndsTheEpochAlone) {
  TestRing ring(Options());
  Registering::RefuseNext();
  std::string why;
  EXPECT_FALSE(Runs(ring, "first", 64, &why));
  EXPECT_THAT(why, HasSubstr("registering memory with registering"));
  ring.Form(ring.epoch() + 1);
  EXPECT_TRUE(Runs(ring, "second"));
  EXPECT_EQ(Registering::faults(), "");
}

INSTANTIATE_TEST_SUITE_P(Devices, WireMemoryTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Apart" : "Host"; });

}  // namespace
}  // namespace annulus::worker::testing
