// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/out_queue.h"

#include <sys/socket.h>

#include <deque>
#include <random>

#include "gtest/gtest.h"
#include "server/transport/host/unique_fd.h"

namespace annulus::transport {
namespace {

class OutQueueTest : public ::testing::Test {
 protected:
  OutQueueTest() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    writer_ = UniqueFd(ends[0]);
    reader_ = UniqueFd(ends[1]);
  }

  void Read(size_t most) {
    std::vector<uint8_t> piece(most);
    const ssize_t got = ::recv(reader_.get(), piece.data(), piece.size(), 0);
    if (got > 0) received_.insert(received_.end(), piece.begin(), piece.begin() + got);
  }

  UniqueFd writer_;
  UniqueFd reader_;
  std::vector<uint8_t> received_;
};

// Whatever the order of appends, borrowed payloads, partial writes and detaching: the stream is
// what was queued.
TEST_F(OutQueueTest, TheStreamIsWhatWasQueued) {
  std::mt19937 random(7);
  OutQueue queue;
  std::vector<uint8_t> expected;
  std::deque<std::vector<uint8_t>> lent;
  uint8_t next = 0;
  auto fresh = [&](size_t bytes) {
    std::vector<uint8_t> made(bytes);
    for (uint8_t& byte : made) byte = next++;
    expected.insert(expected.end(), made.begin(), made.end());
    return made;
  };
  for (int step = 0; step < 3000; ++step) {
    switch (random() % 5) {
      case 0:
        queue.Append(fresh(random() % 200));
        break;
      case 1:
        if (!queue.has_borrowed()) {
          std::vector<iovec> pieces;
          for (size_t i = random() % 100 + 1; i > 0; --i) {
            lent.push_back(fresh(random() % 5000 + 1));
            pieces.push_back({lent.back().data(), lent.back().size()});
          }
          queue.Borrow(pieces);
        }
        break;
      case 2:
        if (random() % 4 == 0) {
          queue.Detach();
          for (auto& memory : lent)
            std::fill(memory.begin(), memory.end(), uint8_t{0});  // ours again
          EXPECT_FALSE(queue.has_borrowed());
        }
        break;
      case 3:
        EXPECT_NE(queue.Flush(writer_.get()), OutQueue::Result::kBroken);
        break;
      default:
        Read(random() % 50'000 + 1);
    }
    if (!queue.has_borrowed()) lent.clear();
  }
  while (queue.Flush(writer_.get()) == OutQueue::Result::kBlocked) Read(100'000);
  while (received_.size() < expected.size()) Read(100'000);
  EXPECT_TRUE(received_ == expected);
  EXPECT_TRUE(queue.empty());
}

TEST_F(OutQueueTest, ABrokenPipeIsReported) {
  OutQueue queue;
  reader_.Reset();
  queue.Append(std::vector<uint8_t>(10));
  EXPECT_EQ(queue.Flush(writer_.get()), OutQueue::Result::kBroken);
}

}  // namespace
}  // namespace annulus::transport
