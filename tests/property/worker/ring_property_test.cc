// SPDX-License-Identifier: Apache-2.0
// Random problems on random rings against the float64 reference.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/reference/error_metrics.h"
#include "server/ring/planner.h"
#include "tests/support/apart/apart_plugin.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

Problem RandomProblem() {
  Problem problem;
  problem.size = *rc::gen::element(1, 2, 3, 4, 6, 8);
  std::vector<int> windows;
  for (int w = 1; w <= problem.size; ++w) {
    if (problem.size % w == 0) windows.push_back(w);
  }
  problem.window = *rc::gen::elementOf(windows);
  problem.batch = *rc::gen::inRange(1, 4);
  problem.query_length = *rc::gen::inRange(1, 70);
  problem.kv_length = *rc::gen::inRange(1, 70);
  problem.kv_heads = *rc::gen::inRange(1, 3);
  problem.query_heads = problem.kv_heads * *rc::gen::inRange(1, 4);
  problem.head_dim = *rc::gen::element(16, 24, 64);
  problem.layout =
      *rc::gen::element(ring::Layout::kContiguous, ring::Layout::kZigzag, ring::Layout::kStriped);
  problem.mask.kind = *rc::gen::element(ring::MaskKind::kFull, ring::MaskKind::kCausal);
  if (problem.mask.kind == ring::MaskKind::kCausal) {
    problem.mask.window_left = *rc::gen::inRange<int64_t>(-1, 30);
  }
  problem.dtype = *rc::gen::element(ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16);
  problem.output_dtype = *rc::gen::element(problem.dtype, ANNULUS_F32);
  problem.in_place = *rc::gen::inRange(0, 2) == 0;
  problem.seed = *rc::gen::inRange<uint32_t>(0, 1 << 20);
  return problem;
}

// The gates are for many N(0, 1) elements, whose rounding errors average; here a single one may
// decide. Each 16-bit rounding is off by 2^-9 (bf16) or 2^-12 (f16) of its value at most, and three
// of them come together: of o, of its product with do, and of the gradient itself.
double GradientBound(const Problem& problem) {
  switch (problem.dtype) {
    case ANNULUS_BF16:
      return 3 * std::pow(2.0, -9);
    case ANNULUS_F16:
      return 3 * std::pow(2.0, -12);
    case ANNULUS_F32:
      break;
  }
  return kernels::GatesFor(problem.dtype).gradient_relative_rmse;
}

TEST(RingProperty, AnyProblemIsExactForwardAndBackward) {
  std::map<std::pair<int, bool>, std::unique_ptr<TestRing>> rings;
  int number = 0;
  EXPECT_TRUE(rc::check([&] {
    const Problem problem = RandomProblem();
    // On the host, or on devices with memory of their own.
    const bool apart = *rc::gen::inRange(0, 2) == 0;
    auto& ring = rings[{problem.size, apart}];
    if (ring == nullptr) {
      TestRing::Options options;
      options.size = problem.size;
      if (apart) options.compute = testing_support::ApartPlugin();
      ring = std::make_unique<TestRing>(options);
    }
    const bool resident = *rc::gen::inRange(0, 2) == 0;
    const bool overlap = *rc::gen::inRange(0, 2) == 0;
    const ring::Plan forward =
        *ring::MakePlan(SpecOf(problem, ring::Direction::kForward, resident));
    const ring::Plan backward =
        *ring::MakePlan(SpecOf(problem, ring::Direction::kBackward, resident));
    Tensors tensors(problem, forward);
    ring->AddRegion(1, tensors.memory());
    const std::string id = "n" + std::to_string(++number);
    auto calls = tensors.Forward(*ring, ring->AddPlan(forward), id + "f");
    for (AttendCall& call : calls) {
      call.retain = resident;
      call.overlap = overlap;
    }
    for (const auto& answer : ring->Attend(calls)) RC_ASSERT(answer.ok());
    const kernels::AccuracyGates gates = kernels::GatesFor(problem.output_dtype);
    RC_ASSERT(tensors.ForwardError() <= gates.forward_relative_rmse);
    RC_ASSERT(tensors.LseError() <= gates.lse_max_abs);
    calls = tensors.Backward(*ring, ring->AddPlan(backward), id + "b");
    for (AttendCall& call : calls) {
      if (resident) call.forward_request_id = id + "f";
      call.overlap = overlap;
    }
    for (const auto& answer : ring->Attend(calls)) RC_ASSERT(answer.ok());
    RC_ASSERT(tensors.JointGradientError() <= GradientBound(problem));
    for (int rank = 0; rank < problem.size; ++rank) {
      RC_ASSERT(ring->engine(rank).used_bytes() == 0u);
    }
  }));
}

}  // namespace
}  // namespace annulus::worker::testing
