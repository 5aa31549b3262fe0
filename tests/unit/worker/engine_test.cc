// SPDX-License-Identifier: Apache-2.0
// What the engine promises around the ring: fences, repeated requests, limits, memory.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/reference/error_metrics.h"
#include "server/base/fault_info.h"
#include "server/ring/planner.h"
#include "server/worker/clock.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

using ring::Direction;

std::string ReasonOf(const absl::Status& status) {
  const auto info = GetFaultInfo(status);
  return info ? info->reason : "";
}

// A ring with one small forward ready to be called.
struct Scene {
  explicit Scene(const TestRing::Options& options, Problem shape = {}) : ring(options) {
    problem = shape;
    problem.size = options.size;
    plan = *ring::MakePlan(SpecOf(problem, Direction::kForward, true));
    digest = ring.AddPlan(plan);
    tensors = std::make_unique<Tensors>(problem, plan);
    ring.AddRegion(1, tensors->memory());
  }
  std::vector<AttendCall> Calls(const std::string& id) const {
    return tensors->Forward(ring, digest, id);
  }
  std::vector<absl::StatusOr<AttendAnswer>> Run(const std::string& id) {
    return ring.Attend(Calls(id));
  }
  bool Exact() const { return tensors->ForwardError() <= 5e-6; }

  Problem problem;
  TestRing ring;
  ring::Plan plan;
  std::string digest;
  std::unique_ptr<Tensors> tensors;
};

class Observer : public EngineObserver {
 public:
  void OnRequest(const AttendCall&, const absl::Status& status, const AttendAnswer&,
                 const metrics::Timeline& timeline) override {
    ++requests;
    failures += status.ok() ? 0 : 1;
    ops += static_cast<int>(timeline.ops.size());
  }
  void OnStaleEpoch() override { ++stale; }
  std::unique_ptr<StepObserver> OnStart(const AttendCall&,
                                        const metrics::TransportNames&) override {
    struct Steps : StepObserver {
      explicit Steps(std::atomic<int>* counter) : count(counter) {}
      void OnStep(const std::vector<metrics::Op>&, int64_t settled_ns) override {
        EXPECT_GE(settled_ns, last_ns);
        last_ns = settled_ns;
        ++*count;
      }
      std::atomic<int>* count;
      int64_t last_ns = 0;
    };
    return std::make_unique<Steps>(&steps);
  }
  std::atomic<int> requests{0}, failures{0}, ops{0}, stale{0}, steps{0};
};

TEST(EngineTest, ReportsWhatItDid) {
  Scene scene({.size = 4});
  Observer observer;
  scene.ring.engine(0).SetObserver(&observer);
  auto calls = scene.Calls("a");
  calls[0].record_timeline = true;
  const auto answers = scene.ring.Attend(calls);
  ASSERT_TRUE(answers[0].ok()) << answers[0].status();
  EXPECT_TRUE(scene.Exact());
  EXPECT_EQ(observer.requests, 1);
  EXPECT_EQ(observer.steps, scene.plan.steps);
  EXPECT_GT(observer.ops, 0);
  const AttendAnswer& answer = *answers[0];
  EXPECT_GT(answer.summary.compute_seconds, 0);
  EXPECT_GT(answer.summary.bytes_sent_inner, 0u);
  EXPECT_EQ(answer.steps.size(), static_cast<size_t>(scene.plan.steps));
  EXPECT_FALSE(answer.timeline.ops.empty());
  for (const metrics::Op& op : answer.timeline.ops) {
    EXPECT_LE(op.start_ns, op.end_ns);
    EXPECT_GE(op.start_ns, answer.timeline.start_ns - 1'000'000'000);
  }
  EXPECT_TRUE(answers[1]->timeline.ops.empty());
  EXPECT_GT(answer.peak_bytes, 0u);
  EXPECT_TRUE(scene.ring.engine(0).RunningRequests().empty());
  EXPECT_EQ(scene.ring.engine(0).used_bytes(), 0u);
}

TEST(EngineTest, FencesOffThePast) {
  Scene scene({.size = 1, .epoch = 5});
  Observer observer;
  Engine& engine = scene.ring.engine(0);
  engine.SetObserver(&observer);
  AttendCall call = scene.Calls("a")[0];
  call.fence.epoch = 4;
  EXPECT_EQ(ReasonOf(engine.Attend(call).status()), "STALE_EPOCH");
  call.fence.epoch = 6;
  EXPECT_EQ(ReasonOf(engine.Attend(call).status()), "GROUP_NOT_READY");
  call.fence.epoch = 5;
  call.fence.incarnation = 99;
  EXPECT_EQ(ReasonOf(engine.Attend(call).status()), "WRONG_INCARNATION");
  call.fence.incarnation = 100;
  engine.SetTerm(3);
  engine.SetTerm(2);
  call.fence.term = 2;
  EXPECT_EQ(ReasonOf(engine.Attend(call).status()), "STALE_TERM");
  call.fence.term = 3;
  EXPECT_TRUE(engine.Attend(call).ok());
  EXPECT_EQ(observer.stale, 2);
  GroupAssignment old;
  old.group = "g";
  old.epoch = 4;
  EXPECT_EQ(ReasonOf(engine.PrepareGroup(old).status()), "STALE_EPOCH");
  engine.ReleaseGroup("g", 4);
  call.fence.request_id = "b";
  EXPECT_TRUE(engine.Attend(call).ok()) << "an old release has no effect";
  engine.ReleaseGroup("g", 5);
  call.fence.request_id = "c";
  EXPECT_EQ(ReasonOf(engine.Attend(call).status()), "STALE_EPOCH");
}

TEST(EngineTest, ARepeatedRequestHasOneEffect) {
  Scene scene({.size = 2});
  auto calls = scene.Calls("a");
  for (AttendCall& call : calls) call.content_hash = 7;
  for (const auto& answer : scene.ring.Attend(calls)) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_FALSE(answer->replayed);
  }
  scene.tensors->FillOutputs(0);
  // One rank alone: a second execution would wait for its peer.
  const auto again = scene.ring.engine(0).Attend(calls[0]);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->replayed);
  EXPECT_EQ(scene.tensors->Read("o")[0], 0.0f);
  calls[0].content_hash = 8;
  const auto other = scene.ring.engine(0).Attend(calls[0]);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(other.status()), "REQUEST_ID_REUSED");
}

TEST(EngineTest, TheSameIdAtALaterEpochRunsAgainOnAllRanks) {
  Scene scene({.size = 2});
  ASSERT_TRUE(scene.Run("a")[0].ok());
  const auto first = scene.tensors->Read("o");
  scene.ring.Form(2);
  scene.tensors->FillOutputs(0xff);
  for (const auto& answer : scene.Run("a")) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_FALSE(answer->replayed);
  }
  EXPECT_EQ(scene.tensors->Read("o"), first);
}

TEST(EngineTest, ConcurrentTwinsShareOneExecution) {
  Scene scene({.size = 1});
  const AttendCall call = scene.Calls("a")[0];
  std::atomic<int> replayed{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const auto answer = scene.ring.engine(0).Attend(call);
      ASSERT_TRUE(answer.ok()) << answer.status();
      replayed += answer->replayed ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(replayed, 3);
}

TEST(EngineTest, TenRunsGiveTheSameBytes) {
  Scene scene({.size = 4}, {.query_length = 150, .kv_length = 150, .window = 2});
  const ring::Plan backward = *ring::MakePlan(SpecOf(scene.problem, Direction::kBackward, false));
  const std::string digest = scene.ring.AddPlan(backward);
  std::vector<std::vector<float>> first;
  for (int run = 0; run < 10; ++run) {
    scene.tensors->FillOutputs(0xff);
    for (const auto& answer : scene.Run(absl::StrCat("f", run))) ASSERT_TRUE(answer.ok());
    const auto calls = scene.tensors->Backward(scene.ring, digest, absl::StrCat("b", run));
    for (const auto& answer : scene.ring.Attend(calls)) ASSERT_TRUE(answer.ok());
    std::vector<std::vector<float>> now;
    for (const char* name : {"o", "lse", "dq", "dk", "dv"}) {
      now.push_back(scene.tensors->Read(name));
    }
    if (run == 0) first = now;
    ASSERT_EQ(now, first) << "run " << run;
  }
}

TEST(EngineTest, RequestsOfOneGroupDoNotMix) {
  Scene scene({.size = 3});
  Problem other = scene.problem;
  other.seed = 9;
  other.mask = {ring::MaskKind::kCausal, -1};
  const ring::Plan plan = *ring::MakePlan(SpecOf(other, Direction::kForward, false));
  Tensors tensors(other, plan);
  const std::string digest = scene.ring.AddPlan(plan);
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(scene.ring.engine(rank)
                    .AddRegion(scene.ring.session(rank), 2, 1, tensors.memory().DupFd(),
                               tensors.memory().bytes())
                    .ok());
  }
  for (int round = 0; round < 5; ++round) {
    auto calls = tensors.Forward(scene.ring, digest, absl::StrCat("y", round));
    for (AttendCall& call : calls) {
      for (auto* ref : {&call.q, &call.k, &call.v, &call.o, &call.lse}) {
        (*ref)->region->region_id = 2;
      }
    }
    std::thread twin([&] {
      for (const auto& answer : scene.ring.Attend(calls)) EXPECT_TRUE(answer.ok());
    });
    for (const auto& answer : scene.Run(absl::StrCat("x", round))) EXPECT_TRUE(answer.ok());
    twin.join();
    ASSERT_TRUE(scene.Exact());
    ASSERT_LE(tensors.ForwardError(), 5e-6);
  }
}

TEST(EngineTest, MemoryIsRefusedBeforeItIsTaken) {
  Scene scene({.size = 2, .memory_limit_bytes = 4096}, {.query_length = 512, .kv_length = 512});
  for (const auto& answer : scene.Run("a")) {
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ReasonOf(answer.status()), "MEMORY_LIMIT");
  }
  EXPECT_EQ(scene.ring.engine(0).used_bytes(), 0u);
  EXPECT_TRUE(scene.ring.observations().empty()) << "nothing began, so the epoch lives on";
}

TEST(EngineTest, AHeldTensorFromUploadToDownload) {
  Scene scene({.size = 1}, {.query_length = 32, .kv_length = 32});
  Engine& engine = scene.ring.engine(0);
  const std::string& session = scene.ring.session(0);
  AttendCall call = scene.Calls("a")[0];
  const auto hold = [&](std::optional<TensorRef>* ref, const std::string& id, bool upload) {
    const uint64_t bytes =
        static_cast<uint64_t>((*ref)->rows) * (*ref)->heads * std::max((*ref)->head_dim, 1) * 4;
    ASSERT_TRUE(engine.CreateTensor(session, id, bytes).ok());
    const uint8_t* from = scene.tensors->memory().data() + (*ref)->region->offset;
    for (uint64_t at = 0; upload && at < bytes; at += 500) {
      ASSERT_TRUE(
          engine.WriteTensor(session, id, at, from + at, std::min<uint64_t>(500, bytes - at)).ok());
    }
    (*ref)->region.reset();
    (*ref)->tensor_id = id;
  };
  hold(&call.q, "q", true);
  hold(&call.k, "k", true);
  hold(&call.v, "v", true);
  hold(&call.o, "o", false);
  hold(&call.lse, "lse", false);
  ASSERT_TRUE(engine.Attend(call).ok());
  const auto held = engine.ReadTensor(session, "o");
  ASSERT_TRUE(held.ok());
  EXPECT_EQ(held->committed_bytes, held->bytes);
  ASSERT_TRUE(scene.Run("b")[0].ok());
  const auto want = scene.tensors->Read("o");
  const auto* got = reinterpret_cast<const float*>(held->data);
  EXPECT_EQ(std::vector<float>(got, got + want.size()), want);
  const uint64_t used = engine.used_bytes();
  EXPECT_GT(used, 0u);
  engine.CloseSession(session);
  EXPECT_LT(engine.used_bytes(), used);
}

TEST(EngineTest, RefusesWhatDoesNotFitTheCall) {
  Scene scene({.size = 2});
  const AttendCall good = scene.Calls("a")[0];
  const auto code = [&](const std::function<void(AttendCall*)>& spoil) {
    AttendCall call = good;
    spoil(&call);
    return scene.ring.engine(0).Attend(call).status().code();
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](AttendCall* c) { c->q.reset(); }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->dq = c->q; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->batch = 2; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->batch = 0; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->kv_heads = 3; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->head_dim = 17; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->softmax_scale = NAN; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->dtype = ANNULUS_BF16; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->fence.request_id = "no spaces"; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->k->tokens = {{100, 164, 1}}; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->k->region->offset += 1; }), invalid);
  EXPECT_EQ(code([](AttendCall* c) { c->session_id = "nobody"; }), absl::StatusCode::kNotFound);
  EXPECT_EQ(code([](AttendCall* c) { c->plan_digest = "00"; }), absl::StatusCode::kNotFound);
  EXPECT_EQ(code([](AttendCall* c) { c->k->region->generation = 9; }), absl::StatusCode::kNotFound);
  // None of these began, so the same id still runs.
  for (const auto& answer : scene.Run("a")) EXPECT_TRUE(answer.ok()) << answer.status();
}

TEST(EngineTest, PlansAreFetchedOncePerDigest) {
  Scene scene({.size = 1});
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(scene.Run(absl::StrCat("a", i))[0].ok());
  EXPECT_EQ(scene.ring.plan_fetches(), 1);
}

TEST(EngineTest, ABackwardNeedsItsForwardsKv) {
  Scene scene({.size = 2});
  const std::string backward =
      scene.ring.AddPlan(*ring::MakePlan(SpecOf(scene.problem, Direction::kBackward, true)));
  auto calls = scene.Calls("f");
  for (AttendCall& call : calls) call.retain = true;
  for (const auto& answer : scene.ring.Attend(calls)) ASSERT_TRUE(answer.ok());
  EXPECT_GT(scene.ring.engine(0).used_bytes(), 0u);
  const auto back = [&](const std::string& id, const std::string& forward) {
    auto all = scene.tensors->Backward(scene.ring, backward, id);
    for (AttendCall& call : all) call.forward_request_id = forward;
    return scene.ring.Attend(all);
  };
  for (const char* forward : {"", "other"}) {
    for (const auto& answer : back(absl::StrCat("x", forward), forward)) {
      EXPECT_EQ(ReasonOf(answer.status()), "RESIDENT_MISSING");
    }
  }
  for (const auto& answer : back("b", "f")) ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(scene.ring.engine(0).used_bytes(), 0u) << "a backward takes what it names";
  for (const auto& answer : back("b2", "f")) {
    EXPECT_EQ(ReasonOf(answer.status()), "RESIDENT_MISSING");
  }
}

TEST(EngineTest, KeptKvGoesWithReleaseSessionAndEpoch) {
  Scene scene({.size = 2});
  const auto keep = [&](const std::string& id) {
    auto calls = scene.Calls(id);
    for (AttendCall& call : calls) call.retain = true;
    for (const auto& answer : scene.ring.Attend(calls)) ASSERT_TRUE(answer.ok());
  };
  Engine& engine = scene.ring.engine(0);
  keep("a");
  ASSERT_TRUE(engine.ReleaseRetained(scene.ring.session(0), "a").ok());
  ASSERT_TRUE(engine.ReleaseRetained(scene.ring.session(0), "a").ok());
  EXPECT_EQ(engine.used_bytes(), 0u);
  keep("b");
  EXPECT_GT(engine.used_bytes(), 0u);
  scene.ring.Form(2);
  EXPECT_EQ(engine.used_bytes(), 0u);
  keep("c");
  engine.CloseSession(scene.ring.session(0));
  EXPECT_EQ(engine.used_bytes(), 0u);
}

TEST(EngineTest, EmulatedLinksAndNoLinks) {
  Scene slow({.size = 4, .inner_link = {1e9, 1e-6}, .outer_link = {2e8, 1e-5}, .ranks_per_node = 2},
             {.window = 2});
  for (const auto& answer : slow.Run("a")) ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(slow.Exact());
  Scene off({.size = 4, .transfers_off = true});
  for (const auto& answer : off.Run("a")) ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_FALSE(off.Exact());
}

}  // namespace
}  // namespace annulus::worker::testing
