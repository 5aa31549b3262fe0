// SPDX-License-Identifier: Apache-2.0
// Workers on devices whose memory the host cannot touch: the answers are those of the reference,
// nothing of the device's is touched by the host, and everything is given back.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "server/worker/clock.h"
#include "tests/support/apart/apart_plugin.h"
#include "tests/support/apart/apart_transport.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/worker/run_both.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

using ring::Direction;
using testing_support::ApartCounts;
using testing_support::ApartPlugin;
using testing_support::ApartTransport;
using testing_support::CountApart;

TestRing::Options Apart(int size) { return {.size = size, .compute = ApartPlugin()}; }

void ExpectAllGivenBack() {
  const ApartCounts counts = CountApart();
  EXPECT_EQ(counts.allocations, 0);
  EXPECT_EQ(counts.pinned, 0);
  EXPECT_EQ(counts.imported, 0);
}

class ApartTest : public ::testing::TestWithParam<int> {};

// Sends and receives go through the host's memory.
TEST_P(ApartTest, MatchesTheReferenceOverTheHostTransport) {
  {
    TestRing ring(Apart(GetParam()));
    RunEveryKind(ring, kUnderSanitizer ? 3 : 1);
    for (int rank = 0; rank < ring.size(); ++rank) EXPECT_EQ(ring.engine(rank).used_bytes(), 0u);
  }
  ExpectAllGivenBack();
}

// Slots go as they are.
TEST_P(ApartTest, MatchesTheReferenceOverATransportOfDeviceMemory) {
  {
    TestRing::Options options = Apart(GetParam());
    options.transports = {ApartTransport()};
    TestRing ring(options);
    RunEveryKind(ring, kUnderSanitizer ? 3 : 2);
  }
  ExpectAllGivenBack();
}

INSTANTIATE_TEST_SUITE_P(Sizes, ApartTest, ::testing::Values(1, 2, 3, 4));

// One forward on a ring of apart devices.
struct Scene {
  explicit Scene(TestRing::Options options) : ring(options) {
    problem.size = options.size;
    const ring::Plan plan = PlanOf(problem, Direction::kForward, false);
    digest = ring.AddPlan(plan);
    tensors = std::make_unique<Tensors>(problem, plan);
    ring.AddRegion(1, tensors->memory());
  }
  std::vector<AttendCall> Calls(const std::string& id) const {
    return tensors->Forward(ring, digest, id);
  }

  Problem problem;
  TestRing ring;
  std::string digest;
  std::unique_ptr<Tensors> tensors;
};

TEST(ApartDeviceTest, ABrokenDeviceEndsTheRequestAndNoMemoryIsLost) {
  {
    Scene scene(Apart(3));
    testing_support::FailApartAttention(2);
    int failed = 0;
    for (const auto& answer : scene.ring.Attend(scene.Calls("a"))) {
      failed += answer.ok() ? 0 : 1;
    }
    testing_support::FailApartAttention(-1);
    EXPECT_GT(failed, 0);
    scene.ring.Form(2);
    scene.tensors->FillOutputs(0xff);
    for (const auto& answer : scene.ring.Attend(scene.Calls("b"))) {
      ASSERT_TRUE(answer.ok()) << answer.status();
    }
    EXPECT_LE(scene.tensors->ForwardError(), 5e-6);
    for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(scene.ring.engine(rank).used_bytes(), 0u);
  }
  ExpectAllGivenBack();
}

TEST(ApartDeviceTest, APeerThatNeverComesEndsTheRequestByItsDeadline) {
  Scene scene(Apart(2));
  AttendCall call = scene.Calls("a")[0];
  call.deadline_ns = NowNs() + 200'000'000;
  EXPECT_EQ(scene.ring.engine(0).Attend(call).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(scene.ring.engine(0).used_bytes(), 0u);
}

// The least that a worker of a ring of two takes the call with, in steps of a page.
uint64_t SmallestLimit(const annulusComputeV1* compute) {
  for (uint64_t limit = 4096;; limit += 4096) {
    Scene scene({.size = 2, .memory_limit_bytes = limit, .compute = compute});
    AttendCall call = scene.Calls("a")[0];
    call.deadline_ns = NowNs() + 20'000'000;  // of those that are taken: nobody answers
    const absl::Status status = scene.ring.engine(0).Attend(call).status();
    EXPECT_EQ(scene.ring.engine(0).used_bytes(), 0u);
    if (status.code() != absl::StatusCode::kResourceExhausted) return limit;
  }
}

TEST(ApartDeviceTest, TheCopiesOfBothMemoriesCountAgainstTheLimit) {
  // Half a sequence of 64 tokens, in float32: q and o of two heads, k and v of one, each of
  // size 16.
  constexpr uint64_t kTensors = 32 * 16 * (2 + 2 + 1 + 1) * sizeof(float);
  constexpr uint64_t kSlot = 32 * 16 * (1 + 1) * sizeof(float);
  EXPECT_GE(SmallestLimit(ApartPlugin()), SmallestLimit(HostDevice()) + kTensors + kSlot);
}

TEST(ApartDeviceTest, LeasedRegionsArePinnedWhileTheyLast) {
  Scene scene(Apart(1));
  EXPECT_EQ(CountApart().pinned, 1);
  ASSERT_TRUE(scene.ring.engine(0).RemoveRegion(scene.ring.session(0), 1).ok());
  EXPECT_EQ(CountApart().pinned, 0);
}

TEST(ApartDeviceTest, UploadedTensorsAreTakenToTheDeviceAndBack) {
  Scene scene(Apart(1));
  Engine& engine = scene.ring.engine(0);
  const std::string& session = scene.ring.session(0);
  AttendCall call = scene.Calls("a")[0];
  ASSERT_TRUE(engine.Attend(call).ok());
  const std::vector<float> want = scene.tensors->Read("o");
  const auto hold = [&](TensorRef& ref, const std::string& id, bool fill) {
    const uint64_t bytes = static_cast<uint64_t>(ref.rows * ref.heads) *
                           static_cast<uint64_t>(std::max(ref.head_dim, 1)) * sizeof(float);
    ASSERT_TRUE(engine.CreateTensor(session, id, bytes).ok());
    const uint8_t* data = scene.tensors->memory().data() + ref.region->offset;
    if (fill) {
      ASSERT_TRUE(engine.WriteTensor(session, id, 0, data, bytes).ok());
    }
    ref.region.reset();
    ref.tensor_id = id;
  };
  hold(*call.q, "q", true);
  hold(*call.k, "k", true);
  hold(*call.v, "v", true);
  hold(*call.o, "o", false);
  hold(*call.lse, "lse", false);
  call.fence.request_id = "b";
  ASSERT_TRUE(engine.Attend(call).ok());
  const auto bytes = engine.ReadTensor(session, "o");
  ASSERT_TRUE(bytes.ok());
  ASSERT_EQ(bytes->bytes, want.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(bytes->data, want.data(), bytes->bytes), 0);
}

TEST(ApartDeviceTest, ATransportThatCannotMoveItsMemoryIsRefused) {
  EngineOptions options;
  options.compute = HostDevice();
  options.transports = {ApartTransport()};
  const auto engine = Engine::Create(options);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kFailedPrecondition) << engine.status();
}

TEST(ApartDeviceTest, EmulatedLinksAndTransfersOffRunToo) {
  TestRing::Options options = Apart(4);
  options.inner_link = {1e9, 1e-5};
  options.outer_link = {1e9, 1e-5};
  options.ranks_per_node = 2;
  TestRing paced(options);
  RunBoth(paced, {.size = 4, .window = 2}, {}, "paced");
  options = Apart(2);
  options.transfers_off = true;
  Scene off(options);
  for (const auto& answer : off.ring.Attend(off.Calls("off"))) {
    ASSERT_TRUE(answer.ok()) << answer.status();
  }
  for (const float value : off.tensors->Read("o")) ASSERT_EQ(value, value);
}

}  // namespace
}  // namespace annulus::worker::testing
