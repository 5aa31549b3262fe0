// SPDX-License-Identifier: Apache-2.0
// Whole rings, forward and backward, against the float64 reference.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/reference/error_metrics.h"
#include "server/ring/planner.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

using ring::Direction;
using ring::Layout;

void ExpectAllOk(const std::vector<absl::StatusOr<AttendAnswer>>& answers) {
  for (const auto& answer : answers) ASSERT_TRUE(answer.ok()) << answer.status();
}

std::vector<int> WindowsOf(int size) {
  std::vector<int> windows;
  for (int w = 1; w <= size; ++w) {
    if (size % w == 0) windows.push_back(w);
  }
  return windows;
}

ring::Plan PlanOf(const Problem& problem, Direction direction, bool keep_resident) {
  auto plan = ring::MakePlan(SpecOf(problem, direction, keep_resident));
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *plan;
}

struct Manner {
  bool overlap = true;
  bool resident = true;
  bool bf16_wire = false;
};

// One forward and its backward, checked against the gates.
void RunBoth(TestRing& ring, const Problem& problem, const Manner& run, const std::string& id) {
  const ring::Plan forward = PlanOf(problem, Direction::kForward, run.resident);
  const ring::Plan backward = PlanOf(problem, Direction::kBackward, run.resident);
  Tensors tensors(problem, forward);
  ring.AddRegion(1, tensors.memory());
  auto calls = tensors.Forward(ring, ring.AddPlan(forward), id + "-f");
  for (AttendCall& call : calls) {
    call.overlap = run.overlap;
    call.retain = run.resident;
  }
  ExpectAllOk(ring.Attend(calls));
  const kernels::AccuracyGates gates = kernels::GatesFor(problem.output_dtype);
  EXPECT_LE(tensors.ForwardError(), gates.forward_relative_rmse);
  EXPECT_LE(tensors.LseError(), gates.lse_max_abs);
  calls = tensors.Backward(ring, ring.AddPlan(backward), id + "-b");
  for (AttendCall& call : calls) {
    call.overlap = run.overlap;
    call.gradient_wire_bf16 = run.bf16_wire;
    if (run.resident) call.forward_request_id = id + "-f";
  }
  ExpectAllOk(ring.Attend(calls));
  double gate = kernels::GatesFor(problem.dtype).gradient_relative_rmse;
  if (run.bf16_wire) gate += 1.6e-3 * std::sqrt(problem.size);
  EXPECT_LE(tensors.GradientError(), gate);
}

class RingTest : public ::testing::TestWithParam<int> {};

// Every window, layout and mask; the other choices rotate so that each meets each.
TEST_P(RingTest, MatchesTheReference) {
  TestRing ring({.size = GetParam()});
  const std::vector<ring::Mask> masks = {
      {ring::MaskKind::kFull, -1}, {ring::MaskKind::kCausal, -1}, {ring::MaskKind::kCausal, 20}};
  int number = 0;
  for (const int window : WindowsOf(GetParam())) {
    for (const Layout layout : {Layout::kContiguous, Layout::kZigzag, Layout::kStriped}) {
      for (const ring::Mask& mask : masks) {
        ++number;
        Problem problem;
        problem.size = GetParam();
        problem.window = window;
        problem.layout = layout;
        problem.mask = mask;
        problem.batch = 1 + number % 2;
        problem.query_length = 61 + number % 5;
        problem.kv_length = problem.query_length + (number % 3 == 0 ? 19 : 0);
        problem.query_heads = number % 2 == 0 ? 4 : 2;
        problem.kv_heads = number % 4 == 0 ? 1 : 2;
        problem.in_place = number / 2 % 2 == 0;
        problem.dtype = number % 5 == 1   ? ANNULUS_BF16
                        : number % 5 == 3 ? ANNULUS_F16
                                          : ANNULUS_F32;
        problem.output_dtype = number % 10 < 5 ? problem.dtype : ANNULUS_F32;
        problem.seed = static_cast<uint32_t>(number);
        const Manner run{number % 3 != 1, number % 2 == 0, number % 7 == 2};
        SCOPED_TRACE(absl::StrCat("number ", number, ", window ", window, ", layout ",
                                  static_cast<int>(layout), ", mask ", static_cast<int>(mask.kind),
                                  " left ", mask.window_left));
        RunBoth(ring, problem, run, absl::StrCat("r", number));
        if (HasFatalFailure() || HasNonfatalFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, RingTest, ::testing::Values(1, 2, 3, 4, 6, 8));

}  // namespace
}  // namespace annulus::worker::testing
