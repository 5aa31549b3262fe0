// SPDX-License-Identifier: Apache-2.0
// References from a hostile caller: whatever is accepted lies inside its memory, and an engine that
// is given them refuses or computes, and touches nothing else.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/ring/planner.h"
#include "server/worker/tensor_bounds.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker::testing {
namespace {

constexpr int64_t kEdges[] = {0,
                              1,
                              2,
                              15,
                              16,
                              17,
                              64,
                              int64_t{1} << 31,
                              int64_t{1} << 40,
                              int64_t{1} << 48,
                              (int64_t{1} << 62) + 1,
                              std::numeric_limits<int64_t>::max(),
                              -1,
                              std::numeric_limits<int64_t>::min()};

int64_t Odd(int64_t sensible) {
  switch (*rc::gen::inRange(0, 6)) {
    case 0:
      return *rc::gen::elementOf(std::vector<int64_t>(std::begin(kEdges), std::end(kEdges)));
    case 1:
      // Wraps around where `sensible` is an edge itself.
      return static_cast<int64_t>(static_cast<uint64_t>(sensible) +
                                  static_cast<uint64_t>(*rc::gen::inRange<int64_t>(-2, 3)));
    default:
      return sensible;
  }
}

ring::TokenRanges OddTokens(int64_t rows) {
  if (*rc::gen::inRange(0, 3) != 0) return {{0, rows, 1}};
  ring::TokenRanges ranges;
  const auto count = *rc::gen::inRange(0, 4);
  for (int i = 0; i < count; ++i) ranges.push_back({Odd(0), Odd(rows), Odd(1)});
  return ranges;
}

TensorRef OddRef(const TensorRef& good) {
  TensorRef ref = good;
  ref.batch = Odd(ref.batch);
  ref.rows = Odd(ref.rows);
  ref.heads = static_cast<int>(Odd(ref.heads));
  ref.head_dim = static_cast<int>(Odd(ref.head_dim));
  if (*rc::gen::inRange(0, 2) == 0) {
    ref.batch_stride = Odd(256);
    ref.row_stride = Odd(32);
    ref.head_stride = Odd(16);
  }
  ref.tokens = OddTokens(ref.rows);
  ref.dtype = static_cast<annulusDtype>(*rc::gen::inRange(0, 4));
  if (ref.region) {
    ref.region->offset = static_cast<uint64_t>(Odd(static_cast<int64_t>(ref.region->offset)));
  }
  return ref;
}

TEST(RefsProperty, WhatIsAcceptedLiesInside) {
  EXPECT_TRUE(rc::check([] {
    TensorRef good;
    good.batch = 2;
    good.rows = 8;
    good.heads = 2;
    good.head_dim = 16;
    const TensorRef ref = OddRef(good);
    const TensorShape shape{"x", ref.batch, ref.heads, ref.head_dim};
    const auto memory = static_cast<uint64_t>(*rc::gen::inRange(0, 8192));
    const auto offset = static_cast<uint64_t>(Odd(64));
    const auto dense = CheckTensorRef(ref, shape, offset, memory);
    if (!dense.ok()) return;
    const auto element = static_cast<uint64_t>(ElementBytes(dense->dtype));
    RC_ASSERT(offset % element == 0);
    // Each bound is small once accepted, so this does not overflow.
    const auto inner = static_cast<uint64_t>(ref.head_dim == 0 ? 1 : ref.head_dim);
    uint64_t end = offset;
    if (dense->rows > 0) {
      end += (static_cast<uint64_t>(dense->batch - 1) * dense->batch_stride +
              static_cast<uint64_t>(dense->rows - 1) * dense->row_stride +
              static_cast<uint64_t>(dense->heads - 1) * dense->head_stride + inner) *
             element;
    }
    RC_ASSERT(end <= memory);
  }));
}

TEST(RefsProperty, AnEngineNeverLeavesTheRegion) {
  Problem problem;
  problem.query_length = 24;
  problem.kv_length = 24;
  TestRing ring({.size = 1});
  const ring::Plan forward = *ring::MakePlan(SpecOf(problem, ring::Direction::kForward, false));
  const ring::Plan backward = *ring::MakePlan(SpecOf(problem, ring::Direction::kBackward, false));
  Tensors tensors(problem, forward);
  ring.AddRegion(1, tensors.memory());
  const std::string forward_digest = ring.AddPlan(forward);
  const std::string backward_digest = ring.AddPlan(backward);
  int number = 0;
  int ran = 0;
  EXPECT_TRUE(rc::check([&] {
    const std::string id = "r" + std::to_string(++number);
    const bool back = *rc::gen::inRange(0, 2) == 0;
    AttendCall call = back ? tensors.Backward(ring, backward_digest, id)[0]
                           : tensors.Forward(ring, forward_digest, id)[0];
    const auto spoilt = *rc::gen::inRange(0, 4);
    for (int i = 0; i < spoilt; ++i) {
      std::optional<TensorRef>* refs[] = {&call.q,   &call.k,  &call.v,  &call.o, &call.lse,
                                          &call.d_o, &call.dq, &call.dk, &call.dv};
      std::optional<TensorRef>* ref = refs[*rc::gen::inRange(0, back ? 9 : 5)];
      *ref = OddRef(**ref);
    }
    if (*rc::gen::inRange(0, 4) == 0) call.batch = Odd(1);
    ran += ring.engine(0).Attend(call).ok() ? 1 : 0;
    RC_ASSERT(ring.engine(0).used_bytes() == 0u);
  }));
  EXPECT_GT(ran, 0) << "nothing was ever accepted";
}

}  // namespace
}  // namespace annulus::worker::testing
