// SPDX-License-Identifier: Apache-2.0
#include "client/src/segments.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "server/ring/partition.h"

namespace annulus::client {
namespace {

// Values of the rows of `wanted`, gathered one by one: the slow twin.
std::vector<float> Gather(const std::vector<float>& data, int64_t batch, int64_t rows, int64_t row,
                          const ring::TokenRanges& wanted) {
  std::vector<float> out;
  for (int64_t b = 0; b < batch; ++b) {
    for (const ring::TokenRange& range : wanted) {
      for (int64_t t = range.begin; t < range.end; t += range.stride) {
        for (int64_t i = 0; i < row; ++i) {
          out.push_back(data[static_cast<size_t>((b * rows + t) * row + i)]);
        }
      }
    }
  }
  return out;
}

class Segments : public testing::TestWithParam<ring::Layout> {};

TEST_P(Segments, EveryShardIsItsRowsInOrderAtAnyPieceSize) {
  constexpr int64_t kBatch = 2, kRows = 23, kHeads = 3, kHeadDim = 4;
  std::vector<float> data(kBatch * kRows * kHeads * kHeadDim);
  std::iota(data.begin(), data.end(), 0.0f);
  const TensorView view{data.data(), DataType::kF32, kBatch, kRows, kHeads, kHeadDim};
  for (const ring::TokenRanges& shard : ring::Partition(GetParam(), kRows, 5)) {
    const auto list = SegmentsOf(view, {{0, kRows, 1}}, shard);
    ASSERT_TRUE(list.ok()) << list.status();
    const auto expected = Gather(data, kBatch, kRows, kHeads * kHeadDim, shard);
    ASSERT_EQ(list->bytes, expected.size() * sizeof(float));
    for (const size_t piece_bytes : {size_t{1}, size_t{20}, size_t{1} << 20}) {
      std::vector<uint8_t> got;
      SegmentCursor cursor(*list);
      for (Segment s = cursor.Next(piece_bytes); s.bytes > 0; s = cursor.Next(piece_bytes)) {
        got.insert(got.end(), s.data, s.data + s.bytes);
      }
      EXPECT_EQ(cursor.offset(), list->bytes);
      ASSERT_EQ(got.size(), list->bytes);
      EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size()), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, Segments,
                         testing::Values(ring::Layout::kContiguous, ring::Layout::kZigzag,
                                         ring::Layout::kStriped));

TEST(SegmentsOf, AWholeSequenceIsOnePiece) {
  std::vector<float> data(3 * 10 * 4);
  const TensorView view{data.data(), DataType::kF32, 3, 10, 1, 4};
  const auto list = SegmentsOf(view, {{0, 10, 1}}, {{0, 10, 1}});
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->segments.size(), 1u);
}

TEST(SegmentsOf, ATokenThatIsNotHeldIsRefused) {
  std::vector<float> data(10 * 4);
  const TensorView view{data.data(), DataType::kF32, 1, 10, 1, 4};
  const auto list = SegmentsOf(view, {{0, 10, 1}}, {{8, 11, 1}});
  EXPECT_TRUE(absl::IsInvalidArgument(list.status()));
  EXPECT_NE(list.status().message().find("10"), absl::string_view::npos);
}

TEST(SegmentCursor, ResumesWhereAStreamBroke) {
  std::vector<float> data(20 * 4);
  std::iota(data.begin(), data.end(), 0.0f);
  const TensorView view{data.data(), DataType::kF32, 1, 20, 1, 4};
  const auto list = SegmentsOf(view, {{0, 20, 1}}, {{1, 20, 3}});
  ASSERT_TRUE(list.ok());
  for (size_t offset = 0; offset <= list->bytes; ++offset) {
    SegmentCursor whole(*list), resumed(*list, offset);
    for (size_t i = 0; i < offset; ++i) whole.Next(1);
    EXPECT_EQ(whole.Next(1).data, resumed.Next(1).data) << offset;
  }
}

}  // namespace
}  // namespace annulus::client
