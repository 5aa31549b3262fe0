// SPDX-License-Identifier: Apache-2.0
#include "server/worker/tensor_bounds.h"

#include <gtest/gtest.h>

#include <limits>

namespace annulus::worker {
namespace {

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
const TensorShape kShape{"q", 2, 4, 16};
const TensorShape kStat{"lse", 2, 4, 0};

TensorRef Good() {
  TensorRef ref;
  ref.dtype = ANNULUS_BF16;
  ref.batch = 2;
  ref.rows = 10;
  ref.heads = 4;
  ref.head_dim = 16;
  ref.tokens = {{0, 10, 1}};
  return ref;
}

constexpr uint64_t kDenseBytes = 2 * 10 * 4 * 16 * 2;

TEST(TensorBoundsTest, FillsInDenseStridesAndFitsExactly) {
  const auto dense = CheckTensorRef(Good(), kShape, 0, kDenseBytes);
  ASSERT_TRUE(dense.ok()) << dense.status();
  EXPECT_EQ(dense->head_stride, 16);
  EXPECT_EQ(dense->row_stride, 64);
  EXPECT_EQ(dense->batch_stride, 640);
  EXPECT_FALSE(CheckTensorRef(Good(), kShape, 0, kDenseBytes - 1).ok());
  EXPECT_TRUE(CheckTensorRef(Good(), kShape, 64, kDenseBytes + 64).ok());
  EXPECT_FALSE(CheckTensorRef(Good(), kShape, 64, kDenseBytes + 63).ok());
}

TEST(TensorBoundsTest, RefusesOffsetsThatAreNotAlignedOrBeyond) {
  EXPECT_FALSE(CheckTensorRef(Good(), kShape, 1, 1 << 20).ok());
  EXPECT_FALSE(CheckTensorRef(Good(), kShape, uint64_t{1} << 40, 1 << 20).ok());
  EXPECT_FALSE(CheckTensorRef(Good(), kShape, ~uint64_t{0} - 1, 1 << 20).ok());
}

TEST(TensorBoundsTest, RefusesWhatWouldOverflow) {
  for (const int64_t extreme : {kHuge, kHuge / 2, int64_t{1} << 62, int64_t{1} << 48}) {
    TensorRef ref = Good();
    ref.batch_stride = extreme;
    ref.row_stride = 64;
    ref.head_stride = 16;
    EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, kDenseBytes).ok()) << extreme;
    ref = Good();
    ref.rows = extreme;
    EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, kDenseBytes).ok()) << extreme;
    ref = Good();
    ref.batch = extreme;
    TensorShape shape = kShape;
    shape.batch = extreme;
    EXPECT_FALSE(CheckTensorRef(ref, shape, 0, kDenseBytes).ok()) << extreme;
    ref = Good();
    ref.tokens = {{0, extreme, 1}};
    EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, kDenseBytes).ok()) << extreme;
    ref.tokens = {{0, 10, extreme}};
    EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, kDenseBytes).ok()) << extreme;
  }
}

TEST(TensorBoundsTest, RefusesNegativeOverlappingAndForeignShapes) {
  for (int64_t TensorRef::*stride :
       {&TensorRef::batch_stride, &TensorRef::row_stride, &TensorRef::head_stride}) {
    for (const int64_t bad : {int64_t{-1}, int64_t{0}, int64_t{15}}) {
      TensorRef ref = Good();
      ref.batch_stride = 640;
      ref.row_stride = 64;
      ref.head_stride = 16;
      ref.*stride = bad;
      EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, 1 << 20).ok()) << bad;
    }
  }
  TensorRef ref = Good();
  ref.heads = 5;
  EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, 1 << 20).ok());
  ref = Good();
  ref.dtype = static_cast<annulusDtype>(3);
  EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, 1 << 20).ok());
  ref = Good();
  ref.tokens = {{0, 9, 1}};
  EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, 1 << 20).ok());
  ref.tokens = {{-1, 9, 1}};
  EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, 1 << 20).ok());
  ref.tokens = {{0, 10, 0}};
  EXPECT_FALSE(CheckTensorRef(ref, kShape, 0, 1 << 20).ok());
}

TEST(TensorBoundsTest, TakesHeadsBeforeRows) {
  TensorRef ref = Good();
  ref.head_stride = 160;
  ref.row_stride = 16;
  ref.batch_stride = 640;
  EXPECT_TRUE(CheckTensorRef(ref, kShape, 0, kDenseBytes).ok());
}

TEST(TensorBoundsTest, LseHeadsLieTogether) {
  TensorRef ref = Good();
  ref.dtype = ANNULUS_F32;
  ref.head_dim = 0;
  const auto dense = CheckTensorRef(ref, kStat, 0, 2 * 10 * 4 * 4);
  ASSERT_TRUE(dense.ok()) << dense.status();
  EXPECT_EQ(dense->row_stride, 4);
  EXPECT_EQ(dense->head_stride, 1);
  EXPECT_FALSE(CheckTensorRef(ref, kStat, 0, 2 * 10 * 4 * 4 - 1).ok());
  ref.head_stride = 10;
  ref.row_stride = 1;
  ref.batch_stride = 40;
  EXPECT_FALSE(CheckTensorRef(ref, kStat, 0, 1 << 20).ok());
}

TEST(TensorBoundsTest, NoRowsNeedNoMemory) {
  TensorRef ref = Good();
  ref.rows = 0;
  ref.tokens = {};
  EXPECT_TRUE(CheckTensorRef(ref, kShape, 128, 128).ok());
  EXPECT_FALSE(CheckTensorRef(ref, kShape, 130, 128).ok());
}

}  // namespace
}  // namespace annulus::worker
