// SPDX-License-Identifier: Apache-2.0
// What every transport must do with bytes.
#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "gtest/gtest.h"
#include "tests/contract/transport/kinds.h"

namespace annulus::transport {
namespace {

class TransferTest : public ::testing::TestWithParam<Kind> {};

// Cuts `bytes` into segments at random places; some are empty.
std::vector<annulusSegment> Cut(std::vector<uint8_t>& bytes, std::mt19937& random, size_t cuts) {
  std::vector<size_t> at = {0, bytes.size()};
  for (size_t i = 0; i < cuts; ++i) {
    at.push_back(std::uniform_int_distribution<size_t>(0, bytes.size())(random));
  }
  std::sort(at.begin(), at.end());
  std::vector<annulusSegment> segments;
  for (size_t i = 1; i < at.size(); ++i)
    segments.push_back({bytes.data() + at[i - 1], at[i] - at[i - 1]});
  return segments;
}

TEST_P(TransferTest, MovesEverySize) {
  Mesh mesh(GetParam(), 2);
  uint64_t tag = 0;
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{4097}, size_t{8192},
                             size_t{8193}, (size_t{256} << 10) - 1, size_t{256} << 10,
                             (size_t{256} << 10) + 1, (size_t{3} << 20) + 5, size_t{64} << 20}) {
    std::vector<uint8_t> sent = Pattern(++tag, bytes);
    std::vector<uint8_t> got(bytes, 0xEE);
    annulusRequest* receive = mesh.Receive(1, 0, tag, Whole(got));
    annulusRequest* send = mesh.Send(0, 1, tag, Whole(sent));
    for (const annulusCompletion& end : {mesh.Finish(receive), mesh.Finish(send)}) {
      EXPECT_EQ(end.status, ANNULUS_TRANSPORT_OK) << mesh.LastError(1);
      EXPECT_EQ(end.bytes, bytes);
      EXPECT_LE(end.start_ns, end.end_ns);
    }
    EXPECT_TRUE(sent == got) << bytes << " bytes";
  }
}

TEST_P(TransferTest, StampsLieBetweenPostingAndCompletion) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> sent = Pattern(1, size_t{1} << 20);
  std::vector<uint8_t> got(sent.size());
  const int64_t before = Now();
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
  annulusRequest* send = mesh.Send(0, 1, 1, Whole(sent));
  for (annulusRequest* request : {receive, send}) {
    const annulusCompletion end = mesh.Finish(request);
    EXPECT_GE(end.start_ns, before);
    EXPECT_LE(end.start_ns, end.end_ns);
    EXPECT_LE(end.end_ns, Now());
    EXPECT_EQ(end.peer, request == receive ? 0 : 1);
  }
}

TEST_P(TransferTest, MatchesByTagWhateverTheOrderOfPosting) {
  Mesh mesh(GetParam(), 2);
  std::mt19937 random(5);
  constexpr size_t kTags = 48;
  std::vector<std::vector<uint8_t>> sent;
  std::vector<std::vector<uint8_t>> got;
  std::vector<std::pair<bool, size_t>> posts;  // is it the send, which tag
  for (size_t tag = 0; tag < kTags; ++tag) {
    sent.push_back(Pattern(tag, std::uniform_int_distribution<size_t>(0, 600'000)(random)));
    got.emplace_back(sent.back().size());
    posts.emplace_back(true, tag);
    posts.emplace_back(false, tag);
  }
  std::shuffle(posts.begin(), posts.end(), random);
  std::vector<annulusRequest*> requests;
  for (const auto& [is_send, tag] : posts) {
    requests.push_back(is_send ? mesh.Send(0, 1, tag, Whole(sent[tag]))
                               : mesh.Receive(1, 0, tag, Whole(got[tag])));
  }
  for (annulusRequest* request : requests)
    EXPECT_EQ(mesh.Finish(request).status, ANNULUS_TRANSPORT_OK);
  for (size_t tag = 0; tag < kTags; ++tag) EXPECT_TRUE(sent[tag] == got[tag]) << "tag " << tag;
}

TEST_P(TransferTest, GathersAndScattersSegments) {
  Mesh mesh(GetParam(), 2);
  std::mt19937 random(11);
  for (uint64_t round = 0; round < 8; ++round) {
    const size_t bytes = std::uniform_int_distribution<size_t>(0, 2'000'000)(random);
    std::vector<uint8_t> sent = Pattern(round, bytes);
    std::vector<uint8_t> place(bytes);
    annulusRequest* receive = mesh.Receive(1, 0, round, Cut(place, random, 300));
    annulusRequest* send = mesh.Send(0, 1, round, Cut(sent, random, round == 0 ? 0 : 2000));
    EXPECT_EQ(mesh.Finish(send).status, ANNULUS_TRANSPORT_OK);
    EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
    EXPECT_TRUE(sent == place) << "round " << round;
  }
}

TEST_P(TransferTest, WritesNothingOutsideTheSegments) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> sent = Pattern(3, 300'000);
  std::vector<uint8_t> got(sent.size() + 30, 0xEE);
  annulusRequest* receive =
      mesh.Receive(1, 0, 1, {{got.data() + 10, 100'000}, {got.data() + 100'020, 200'000}});
  annulusRequest* send = mesh.Send(0, 1, 1, Whole(sent));
  EXPECT_EQ(mesh.Finish(send).status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
  for (const size_t gap : {size_t{0}, size_t{100'010}, size_t{300'020}}) {
    for (size_t i = gap; i < gap + 10; ++i) EXPECT_EQ(got[i], 0xEE) << "byte " << i;
  }
  EXPECT_TRUE(std::equal(sent.begin(), sent.begin() + 100'000, got.begin() + 10));
  EXPECT_TRUE(std::equal(sent.begin() + 100'000, sent.end(), got.begin() + 100'020));
}

TEST_P(TransferTest, MovesBothWaysAtOnceUnderOneTag) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> sent[2] = {Pattern(1, size_t{8} << 20), Pattern(2, size_t{8} << 20)};
  std::vector<uint8_t> got[2] = {std::vector<uint8_t>(size_t{8} << 20),
                                 std::vector<uint8_t>(size_t{8} << 20)};
  std::vector<annulusRequest*> requests;
  for (int32_t rank = 0; rank < 2; ++rank) {
    requests.push_back(mesh.Send(rank, 1 - rank, 9, Whole(sent[rank])));
    requests.push_back(mesh.Receive(rank, 1 - rank, 9, Whole(got[rank])));
  }
  for (annulusRequest* request : requests)
    EXPECT_EQ(mesh.Finish(request).status, ANNULUS_TRANSPORT_OK);
  EXPECT_TRUE(sent[0] == got[1]);
  EXPECT_TRUE(sent[1] == got[0]);
}

TEST_P(TransferTest, AnUnmatchedSendHoldsNothingUpAndMovesOnlyOnceItIsReceived) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> big = Pattern(1, size_t{16} << 20);
  std::vector<uint8_t> small = Pattern(2, 100'000);
  std::vector<uint8_t> big_got(big.size());
  std::vector<uint8_t> small_got(small.size());
  annulusRequest* waiting = mesh.Send(0, 1, 1, Whole(big));
  annulusRequest* other = mesh.Send(0, 1, 2, Whole(small));
  EXPECT_EQ(mesh.Finish(mesh.Receive(1, 0, 2, Whole(small_got))).status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(mesh.Finish(other).status, ANNULUS_TRANSPORT_OK);
  EXPECT_FALSE(mesh.Done(waiting));
  const int64_t posted = Now();
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(big_got));
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
  EXPECT_GE(mesh.Finish(waiting).start_ns, posted);
  EXPECT_TRUE(big == big_got);
  EXPECT_TRUE(small == small_got);
}

TEST_P(TransferTest, ServesManyThreads) {
  Mesh mesh(GetParam(), 2);
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kTags = 40;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    for (int32_t rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, thread, rank] {
        for (uint64_t i = 0; i < kTags; ++i) {
          const uint64_t tag = thread * kTags + i;
          std::vector<uint8_t> sent =
              Pattern(tag * 2 + static_cast<uint64_t>(rank), 1000 * (tag + 1));
          std::vector<uint8_t> got(sent.size());
          annulusRequest* requests[] = {mesh.Send(rank, 1 - rank, tag, Whole(sent)),
                                        mesh.Receive(rank, 1 - rank, tag, Whole(got))};
          for (annulusRequest* request : requests) {
            if (mesh.Finish(request).status != ANNULUS_TRANSPORT_OK) ++wrong;
          }
          if (got != Pattern(tag * 2 + static_cast<uint64_t>(1 - rank), got.size())) ++wrong;
        }
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST_P(TransferTest, RingsOfEverySizePassTheirBlocksRound) {
  for (int32_t size = 2; size <= 8; ++size) {
    Mesh mesh(GetParam(), size);
    const size_t bytes = 150'000;
    std::vector<std::vector<uint8_t>> held;
    for (int32_t rank = 0; rank < size; ++rank)
      held.push_back(Pattern(static_cast<uint64_t>(rank), bytes));
    const std::vector<std::vector<uint8_t>> start = held;
    for (int32_t step = 0; step < size; ++step) {
      std::vector<std::vector<uint8_t>> next(static_cast<size_t>(size),
                                             std::vector<uint8_t>(bytes));
      std::vector<annulusRequest*> requests;
      for (int32_t rank = 0; rank < size; ++rank) {
        const int32_t to = (rank + 1) % size;
        const auto tag = static_cast<uint64_t>(step);
        requests.push_back(mesh.Send(rank, to, tag, Whole(held[static_cast<size_t>(rank)])));
        requests.push_back(mesh.Receive(to, rank, tag, Whole(next[static_cast<size_t>(to)])));
      }
      for (annulusRequest* request : requests)
        EXPECT_EQ(mesh.Finish(request).status, ANNULUS_TRANSPORT_OK);
      held.swap(next);
    }
    EXPECT_TRUE(held == start) << "ring of " << size;
  }
}

TEST_P(TransferTest, NotifiesOfCompletions) {
  Mesh mesh(GetParam(), 2);
  std::atomic<int> calls{0};
  mesh.table().set_notify(
      mesh.at(1), [](void* context) { static_cast<std::atomic<int>*>(context)->fetch_add(1); },
      &calls);
  std::vector<uint8_t> sent = Pattern(1, 10);
  std::vector<uint8_t> got(10);
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
  mesh.Finish(mesh.Send(0, 1, 1, Whole(sent)));
  mesh.Finish(receive);
  mesh.Close(1);
  EXPECT_GE(calls.load(), 1);
}

TEST_P(TransferTest, CountsBytes) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> sent = Pattern(1, 12'345);
  std::vector<uint8_t> got(sent.size());
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
  mesh.Finish(mesh.Send(0, 1, 1, Whole(sent)));
  mesh.Finish(receive);
  annulusTransportStats stats{};
  stats.struct_size = sizeof(stats);
  mesh.table().stats(mesh.at(1), &stats);
  EXPECT_EQ(stats.received_bytes, sent.size());
  EXPECT_EQ(stats.sent_bytes, 0u);
}

INSTANTIATE_TEST_SUITE_P(Transports, TransferTest, ::testing::ValuesIn(AllKinds()), KindName);

}  // namespace
}  // namespace annulus::transport
