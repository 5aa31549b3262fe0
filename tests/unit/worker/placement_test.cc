// SPDX-License-Identifier: Apache-2.0
// Where tensors lie and what is copied for it.
#include "server/worker/placement.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <vector>

#include "kernels/cpu/cpu_plugin.h"
#include "server/ring/planner.h"
#include "server/worker/bound_program.h"
#include "tests/support/apart/apart_plugin.h"

namespace annulus::worker {
namespace {

using testing_support::ApartPlugin;

constexpr int kSize = 4;
constexpr int64_t kTokens = 64;
constexpr int kHeads = 2;
constexpr int kHeadDim = 16;
constexpr size_t kTensorBytes = kTokens / kSize * kHeads * kHeadDim * sizeof(float);
constexpr size_t kLseBytes = kTokens / kSize * kHeads * sizeof(float);

size_t BytesOf(const std::vector<annulusCopyArgs>& copies) {
  return std::accumulate(
      copies.begin(), copies.end(), size_t{0},
      [](size_t sum, const annulusCopyArgs& args) { return sum + args.rows * args.row_bytes; });
}

// One rank's request, bound: whole sequences, of which the rank owns two pieces.
class PlacementTest : public ::testing::Test {
 protected:
  void Bind(const annulusComputeV1* table, ring::Direction direction, Memory tensors, Memory wire) {
    device_ = *Device::Open(table, {});
    pool_ = std::make_shared<MemoryPool>(device_, 0);
    ring::Spec spec;
    spec.direction = direction;
    spec.query_length = spec.kv_length = kTokens;
    spec.context_parallel_size = kSize;
    spec.layout = ring::Layout::kZigzag;
    inputs_.program = *CompileForRank(std::make_shared<ring::Plan>(*ring::MakePlan(spec)), 1);
    inputs_.query_heads = inputs_.kv_heads = kHeads;
    inputs_.head_dim = kHeadDim;
    inputs_.wire = wire;
    for (PlacedTensor* tensor : {&inputs_.q, &inputs_.k, &inputs_.v, &inputs_.o, &inputs_.d_o,
                                 &inputs_.dq, &inputs_.dk, &inputs_.dv}) {
      *tensor = Whole(kHeadDim, tensors);
    }
    inputs_.lse = Whole(1, tensors);
    given_ = inputs_;
    placement_ = *Placement::Create(&inputs_, pool_.get());
    space_ = *Workspace::Create(inputs_, pool_.get());
    bound_ = *worker::Bind(inputs_, placement_, space_);
  }

  PlacedTensor Whole(int head_dim, Memory memory) {
    memory_.push_back(
        *pool_->Take(DenseBytes(1, kTokens, kHeads, head_dim, ANNULUS_F32), "a test", memory));
    PlacedTensor tensor =
        PlaceDense(memory_.back().data(), ANNULUS_F32, 1, kHeads, head_dim, &whole_);
    tensor.memory = memory;
    return tensor;
  }

  size_t WireCopies() const {
    size_t bytes = BytesOf(bound_.first_to_wire);
    for (const BoundTransfer& transfer : bound_.transfers) {
      bytes += BytesOf(transfer.to_wire) + BytesOf(transfer.from_wire);
    }
    return bytes;
  }
  void ExpectNoCopies() const {
    EXPECT_TRUE(placement_.moved.empty());
    EXPECT_EQ(placement_.memory.bytes() + space_.host_arena.bytes(), 0u);
    EXPECT_TRUE(bound_.first_uploads.empty() && bound_.uploads.empty() && bound_.downloads.empty());
    EXPECT_EQ(WireCopies(), 0u);
    EXPECT_EQ(inputs_.q.data, given_.q.data);
    EXPECT_EQ(inputs_.sent_k.data, given_.k.data);
  }

  const ring::TokenRanges whole_ = {{0, kTokens, 1}};
  std::shared_ptr<Device> device_;
  std::shared_ptr<MemoryPool> pool_;
  std::vector<Buffer> memory_;
  AttendInputs inputs_, given_;
  Placement placement_;
  Workspace space_;
  BoundProgram bound_;
};

TEST_F(PlacementTest, ADeviceOnTheHostsMemoryCopiesNothing) {
  for (const auto direction : {ring::Direction::kForward, ring::Direction::kBackward}) {
    Bind(kernels::CpuPlugin(), direction, Memory::kDevice, Memory::kDevice);
    ExpectNoCopies();
  }
}

TEST_F(PlacementTest, TensorsInDeviceMemoryAreUsedInPlace) {
  for (const auto direction : {ring::Direction::kForward, ring::Direction::kBackward}) {
    Bind(ApartPlugin(), direction, Memory::kDevice, Memory::kDevice);
    ExpectNoCopies();
  }
}

TEST_F(PlacementTest, OnlyTheRowsOfTheRankAreCopied) {
  Bind(ApartPlugin(), ring::Direction::kForward, Memory::kHost, Memory::kDevice);
  EXPECT_EQ(BytesOf(bound_.first_uploads), 2 * kTensorBytes);  // k, v: sends read them
  EXPECT_EQ(BytesOf(bound_.uploads), kTensorBytes);            // q
  EXPECT_EQ(BytesOf(bound_.downloads), kTensorBytes + kLseBytes);
  EXPECT_EQ(inputs_.sent_k.data, inputs_.k.data);
  EXPECT_EQ(WireCopies(), 0u);
}

TEST_F(PlacementTest, OwnKvGoesToAHostWireFromWhereTheCallerHasIt) {
  Bind(ApartPlugin(), ring::Direction::kForward, Memory::kHost, Memory::kHost);
  EXPECT_TRUE(bound_.first_uploads.empty());
  EXPECT_TRUE(bound_.first_to_wire.empty());
  EXPECT_EQ(BytesOf(bound_.uploads), 3 * kTensorBytes);
  EXPECT_EQ(inputs_.sent_k.data, given_.k.data);
  // What arrives is copied in, and sent on from where it arrived.
  EXPECT_EQ(WireCopies(), (kSize - 1) * 2 * kTensorBytes);
}

TEST_F(PlacementTest, KvInDeviceMemoryIsPackedForAHostWireOnce) {
  Bind(ApartPlugin(), ring::Direction::kForward, Memory::kDevice, Memory::kHost);
  EXPECT_TRUE(placement_.moved.empty());
  EXPECT_EQ(BytesOf(bound_.first_to_wire), 2 * kTensorBytes);
}

TEST_F(PlacementTest, ABackwardBringsAllInputsAndTakesTheGradients) {
  Bind(ApartPlugin(), ring::Direction::kBackward, Memory::kHost, Memory::kDevice);
  EXPECT_EQ(BytesOf(bound_.first_uploads) + BytesOf(bound_.uploads),
            5 * kTensorBytes + kLseBytes);  // q, k, v, o, do
  EXPECT_EQ(BytesOf(bound_.downloads), 3 * kTensorBytes);
}

}  // namespace
}  // namespace annulus::worker
