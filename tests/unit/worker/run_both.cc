// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/worker/run_both.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/reference/error_metrics.h"
#include "server/ring/planner.h"

namespace annulus::worker::testing {
namespace {

using ring::Direction;
using ring::Layout;

// The labels of the copies on all timelines.
std::set<std::string> CopiesOf(const std::vector<absl::StatusOr<AttendAnswer>>& answers) {
  std::set<std::string> labels;
  for (const auto& answer : answers) {
    for (const metrics::Op& op : answer->timeline.ops) {
      if (op.kind == metrics::OpKind::kCopy) labels.insert(op.label);
    }
  }
  return labels;
}

void ExpectDone(const std::vector<absl::StatusOr<AttendAnswer>>& answers, bool apart) {
  for (const auto& answer : answers) ASSERT_TRUE(answer.ok()) << answer.status();
  const std::set<std::string> copies = CopiesOf(answers);
  EXPECT_EQ(copies.count("upload"), apart ? 1u : 0u);
  EXPECT_EQ(copies.count("download"), apart ? 1u : 0u);
  EXPECT_TRUE(apart || copies.empty());
}

std::vector<int> WindowsOf(int size) {
  std::vector<int> windows;
  for (int w = 1; w <= size; ++w) {
    if (size % w == 0) windows.push_back(w);
  }
  return windows;
}

Problem Kind(int number, int size, int window, Layout layout, const ring::Mask& mask) {
  Problem problem;
  problem.size = size;
  problem.window = window;
  problem.layout = layout;
  problem.mask = mask;
  problem.batch = 1 + number % 2;
  problem.query_length = 61 + number % 5;
  problem.kv_length = problem.query_length + (number % 3 == 0 ? 19 : 0);
  problem.query_heads = number % 2 == 0 ? 4 : 2;
  problem.kv_heads = number % 4 == 0 ? 1 : 2;
  problem.in_place = number / 2 % 2 == 0;
  problem.dtype = number % 5 == 1 ? ANNULUS_BF16 : number % 5 == 3 ? ANNULUS_F16 : ANNULUS_F32;
  problem.output_dtype = number % 10 < 5 ? problem.dtype : ANNULUS_F32;
  problem.seed = static_cast<uint32_t>(number);
  return problem;
}

}  // namespace

ring::Plan PlanOf(const Problem& problem, Direction direction, bool keep_resident) {
  auto plan = ring::MakePlan(SpecOf(problem, direction, keep_resident));
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *plan;
}

void RunBoth(TestRing& ring, const Problem& problem, const Manner& run, const std::string& id) {
  const ring::Plan forward = PlanOf(problem, Direction::kForward, run.resident);
  const ring::Plan backward = PlanOf(problem, Direction::kBackward, run.resident);
  Tensors tensors(problem, forward);
  ring.AddRegion(1, tensors.memory());
  auto calls = tensors.Forward(ring, ring.AddPlan(forward), id + "-f");
  for (AttendCall& call : calls) {
    call.overlap = run.overlap;
    call.retain = run.resident;
    call.record_timeline = true;
  }
  ExpectDone(ring.Attend(calls), ring.apart());
  const kernels::AccuracyGates gates = kernels::GatesFor(problem.output_dtype);
  EXPECT_LE(tensors.ForwardError(), gates.forward_relative_rmse);
  EXPECT_LE(tensors.LseError(), gates.lse_max_abs);
  calls = tensors.Backward(ring, ring.AddPlan(backward), id + "-b");
  for (AttendCall& call : calls) {
    call.overlap = run.overlap;
    call.gradient_wire_bf16 = run.bf16_wire;
    call.record_timeline = true;
    if (run.resident) call.forward_request_id = id + "-f";
  }
  ExpectDone(ring.Attend(calls), ring.apart());
  double gate = kernels::GatesFor(problem.dtype).gradient_relative_rmse;
  if (run.bf16_wire) gate += 1.6e-3 * std::sqrt(problem.size);
  EXPECT_LE(tensors.GradientError(), gate);
}

void RunEveryKind(TestRing& ring, int stride) {
  const std::vector<ring::Mask> masks = {
      {ring::MaskKind::kFull, -1}, {ring::MaskKind::kCausal, -1}, {ring::MaskKind::kCausal, 20}};
  int number = 0;
  for (const int window : WindowsOf(ring.size())) {
    for (const Layout layout : {Layout::kContiguous, Layout::kZigzag, Layout::kStriped}) {
      for (const ring::Mask& mask : masks) {
        if (number++ % stride != 0) continue;
        const Problem problem = Kind(number, ring.size(), window, layout, mask);
        const Manner run{number % 3 != 1, number % 2 == 0, number % 7 == 2};
        SCOPED_TRACE(absl::StrCat("number ", number, ", window ", window, ", layout ",
                                  static_cast<int>(layout), ", mask ", static_cast<int>(mask.kind),
                                  " left ", mask.window_left));
        RunBoth(ring, problem, run, absl::StrCat("r", number));
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
}

}  // namespace annulus::worker::testing
