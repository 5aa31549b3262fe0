// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/segment_cursor.h"

#include <random>

#include "gtest/gtest.h"

namespace annulus::transport {
namespace {

TEST(SegmentCursorTest, WalksEveryByteOnceAndInOrder) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint8_t> memory(1000);
    std::vector<annulusSegment> segments;
    std::vector<uint8_t*> expected;
    for (size_t at = 0; at < memory.size();) {
      const size_t bytes = std::min<size_t>(random() % 90, memory.size() - at);
      segments.push_back({memory.data() + at, bytes});
      for (size_t i = 0; i < bytes; ++i) expected.push_back(memory.data() + at + i);
      at += bytes + 1;  // a gap that belongs to nobody
    }
    SegmentCursor cursor(segments);
    std::vector<uint8_t*> walked;
    while (walked.size() < expected.size()) {
      std::vector<iovec> pieces;
      const size_t taken = std::min<size_t>(random() % 200, expected.size() - walked.size());
      cursor.Take(taken, &pieces);
      for (const iovec& piece : pieces) {
        EXPECT_GT(piece.iov_len, 0u);
        for (size_t i = 0; i < piece.iov_len; ++i)
          walked.push_back(static_cast<uint8_t*>(piece.iov_base) + i);
      }
    }
    EXPECT_TRUE(walked == expected);
  }
}

}  // namespace
}  // namespace annulus::transport
