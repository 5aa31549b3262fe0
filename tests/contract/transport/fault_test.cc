// SPDX-License-Identifier: Apache-2.0
// How every transport must fail: soon, everywhere, with the reason, leaving nothing behind.
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/transport/kinds.h"

namespace annulus::transport {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMillisecond = 1'000'000;

class FaultTest : public ::testing::TestWithParam<Kind> {
 protected:
  // Connects rank 0 of two with altered handles of rank 1; nobody else connects.
  annulusTransportStatus ConnectWith(const RankOptions& other, std::string* error) {
    const annulusTransportV1* table = GetParam().table();
    const OpenRank self = OpenOne(GetParam(), {.rank = 0, .size = 2});
    const OpenRank peer = OpenOne(GetParam(), other);
    const annulusTransportHandle handles[] = {self.handle, peer.handle};
    const annulusTransportStatus status = table->connect(self.transport, handles, Soon());
    char text[512] = "";
    table->last_error(self.transport, text, sizeof(text), nullptr);
    *error = text;
    table->close(self.transport);
    table->close(peer.transport);
    return status;
  }
};

TEST_P(FaultTest, MissedDeadlineFailsItsOperationAlone) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> late = Pattern(1, 700'000);
  std::vector<uint8_t> late_got(late.size(), 0xEE);
  std::vector<uint8_t> fine = Pattern(2, 500'000);
  std::vector<uint8_t> fine_got(fine.size());
  const annulusCompletion end =
      mesh.Finish(mesh.Receive(1, 0, 1, Whole(late_got), Now() + 50 * kMillisecond));
  EXPECT_EQ(end.status, ANNULUS_TRANSPORT_DEADLINE);
  EXPECT_EQ(end.peer, 0);
  EXPECT_THAT(mesh.LastError(1), HasSubstr("peer 0"));
  // The peer sends after all; what nobody waits for must not reach the memory given back, nor
  // disturb others.
  annulusRequest* orphan = mesh.Send(0, 1, 1, Whole(late), Now() + 200 * kMillisecond);
  annulusRequest* receive = mesh.Receive(1, 0, 2, Whole(fine_got));
  EXPECT_EQ(mesh.Finish(mesh.Send(0, 1, 2, Whole(fine))).status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
  mesh.Finish(orphan);
  EXPECT_TRUE(fine == fine_got);
  EXPECT_TRUE(late_got == std::vector<uint8_t>(late.size(), 0xEE));
}

TEST_P(FaultTest, SendThatNobodyReceivesMissesItsDeadline) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> bytes = Pattern(1, 1000);
  EXPECT_EQ(mesh.Finish(mesh.Send(0, 1, 1, Whole(bytes), Now() + 50 * kMillisecond)).status,
            ANNULUS_TRANSPORT_DEADLINE);
}

TEST_P(FaultTest, DifferentByteCountsFailBothSidesAlone) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> sent = Pattern(1, 1000);
  std::vector<uint8_t> got(1001);
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
  EXPECT_EQ(mesh.Finish(mesh.Send(0, 1, 1, Whole(sent))).status, ANNULUS_TRANSPORT_MISMATCH);
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_MISMATCH);
  EXPECT_THAT(mesh.LastError(0), HasSubstr("1001"));
  got.resize(1000);
  receive = mesh.Receive(1, 0, 2, Whole(got));
  EXPECT_EQ(mesh.Finish(mesh.Send(0, 1, 2, Whole(sent))).status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
}

TEST_P(FaultTest, AbortFromAnyThreadEndsEveryOperationEverywhere) {
  Mesh mesh(GetParam(), 4);
  std::vector<std::vector<uint8_t>> memory(8, std::vector<uint8_t>(100));
  std::vector<annulusRequest*> requests;
  for (int32_t rank = 0; rank < 4; ++rank) {
    const auto at = static_cast<size_t>(rank);
    requests.push_back(mesh.Receive(rank, (rank + 1) % 4, 1, Whole(memory[at])));
    requests.push_back(mesh.Send(rank, (rank + 2) % 4, 2, Whole(memory[at + 4])));
  }
  std::thread([&] { mesh.table().abort(mesh.at(2), "step 3 failed"); }).join();
  for (annulusRequest* request : requests) {
    EXPECT_EQ(mesh.Finish(request).status, ANNULUS_TRANSPORT_ABORTED);
  }
  for (int32_t rank = 0; rank < 4; ++rank)
    EXPECT_THAT(mesh.LastError(rank), HasSubstr("step 3 failed"));
  mesh.table().abort(mesh.at(0), "again");
  EXPECT_EQ(mesh.Finish(mesh.Receive(0, 1, 5, Whole(memory[0]))).status, ANNULUS_TRANSPORT_ABORTED);
}

TEST_P(FaultTest, AbortInTheMiddleOfBigTransfersReturnsTheMemory) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> sent = Pattern(1, size_t{48} << 20);
  std::vector<uint8_t> got(sent.size());
  for (int round = 0; round < 2; ++round) {
    annulusRequest* receive = mesh.Receive(1, 0, static_cast<uint64_t>(round), Whole(got));
    annulusRequest* send = mesh.Send(0, 1, static_cast<uint64_t>(round), Whole(sent));
    if (round == 0) {
      mesh.Finish(receive);
      mesh.Finish(send);
      continue;
    }
    mesh.table().abort(mesh.at(1), "enough");
    const annulusCompletion received = mesh.Finish(receive);
    std::fill(got.begin(), got.end(), uint8_t{0xEE});
    const annulusCompletion completed = mesh.Finish(send);
    std::fill(sent.begin(), sent.end(), uint8_t{0xDD});
    EXPECT_EQ(received.status, ANNULUS_TRANSPORT_ABORTED);
    EXPECT_EQ(completed.status, ANNULUS_TRANSPORT_ABORTED);
  }
  mesh.Close(0);
  mesh.Close(1);
  EXPECT_TRUE(got == std::vector<uint8_t>(got.size(), 0xEE)) << "written to after the completion";
}

TEST_P(FaultTest, CloseWithOperationsOutstandingAbortsThem) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> mine(10);
  std::vector<uint8_t> theirs(10);
  annulusRequest* own = mesh.Receive(0, 1, 1, Whole(mine));
  annulusRequest* peers = mesh.Receive(1, 0, 1, Whole(theirs));
  mesh.Close(0);
  EXPECT_EQ(mesh.Finish(own).status, ANNULUS_TRANSPORT_ABORTED);
  EXPECT_EQ(mesh.Finish(peers).status, ANNULUS_TRANSPORT_ABORTED);
  EXPECT_THAT(mesh.LastError(1), HasSubstr("closed"));
}

TEST_P(FaultTest, OneRankMayLeaveInGoodOrder) {
  if (!GetParam().outlives_a_rank) GTEST_SKIP() << "the others cannot go on";
  Mesh mesh(GetParam(), 3);
  std::vector<uint8_t> sent = Pattern(1, 3'000'000);
  std::vector<uint8_t> got(sent.size());
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
  EXPECT_EQ(mesh.Finish(mesh.Send(0, 1, 1, Whole(sent))).status, ANNULUS_TRANSPORT_OK);
  mesh.Close(0);
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
  EXPECT_TRUE(sent == got);
  receive = mesh.Receive(1, 2, 2, Whole(got));
  EXPECT_EQ(mesh.Finish(mesh.Send(2, 1, 2, Whole(sent))).status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(mesh.Finish(mesh.Receive(1, 0, 3, Whole(got))).status, ANNULUS_TRANSPORT_PEER_LOST);
}

TEST_P(FaultTest, RefusesWhatCannotBe) {
  Mesh mesh(GetParam(), 2);
  annulusRequest* request = nullptr;
  uint8_t byte = 0;
  const annulusSegment good{&byte, 1};
  const annulusSegment null{nullptr, 1};
  const annulusTransportV1& table = mesh.table();
  EXPECT_EQ(table.isend(mesh.at(0), 0, 1, &good, 1, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_EQ(table.isend(mesh.at(0), 2, 1, &good, 1, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_EQ(table.isend(mesh.at(0), -1, 1, &good, 1, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_EQ(table.irecv(mesh.at(0), 1, 1, &null, 1, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
}

TEST_P(FaultTest, RefusesATagTwiceAtOnce) {
  Mesh mesh(GetParam(), 2);
  std::vector<uint8_t> sent = Pattern(1, 10);
  std::vector<uint8_t> got(10);
  std::vector<uint8_t> second(10);
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
  EXPECT_EQ(mesh.Finish(mesh.Receive(1, 0, 1, Whole(second))).status,
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  mesh.Finish(mesh.Send(0, 1, 1, Whole(sent)));
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
  EXPECT_TRUE(sent == got);
}

TEST_P(FaultTest, NothingMovesBeforeConnect) {
  const OpenRank opened = OpenOne(GetParam(), {.rank = 0, .size = 2});
  uint8_t byte = 0;
  const annulusSegment segment{&byte, 1};
  annulusRequest* request = nullptr;
  EXPECT_EQ(GetParam().table()->isend(opened.transport, 1, 1, &segment, 1, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  GetParam().table()->close(opened.transport);
}

TEST_P(FaultTest, RefusesHandlesOfAnotherEpochGroupSizeOrOrder) {
  std::string error;
  EXPECT_EQ(ConnectWith({.epoch = 6, .rank = 1}, &error), ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_THAT(error, HasSubstr("epoch 6"));
  EXPECT_EQ(ConnectWith({.group = "other", .rank = 1}, &error), ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_THAT(error, HasSubstr("group"));
  EXPECT_EQ(ConnectWith({.rank = 1, .size = 3}, &error), ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_THAT(error, HasSubstr("group of 3"));
  EXPECT_EQ(ConnectWith({.rank = 0}, &error), ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_THAT(error, HasSubstr("rank 0"));
}

TEST_P(FaultTest, ConnectEndsByItsDeadlineAndNamesWhoIsMissing) {
  const annulusTransportV1* table = GetParam().table();
  const OpenRank ranks[] = {OpenOne(GetParam(), {.rank = 0, .size = 3}),
                            OpenOne(GetParam(), {.rank = 1, .size = 3}),
                            OpenOne(GetParam(), {.rank = 2, .size = 3})};
  const annulusTransportHandle handles[] = {ranks[0].handle, ranks[1].handle, ranks[2].handle};
  EXPECT_EQ(table->connect(ranks[0].transport, handles, Now() + 100 * kMillisecond),
            ANNULUS_TRANSPORT_DEADLINE);
  char text[512] = "";
  table->last_error(ranks[0].transport, text, sizeof(text), nullptr);
  EXPECT_THAT(text, HasSubstr("1, 2"));
  for (const OpenRank& rank : ranks) table->close(rank.transport);
}

TEST_P(FaultTest, ConnectToAPeerThatIsGoneFails) {
  const annulusTransportV1* table = GetParam().table();
  const OpenRank gone = OpenOne(GetParam(), {.rank = 0, .size = 2});
  const OpenRank self = OpenOne(GetParam(), {.rank = 1, .size = 2});
  table->close(gone.transport);
  const annulusTransportHandle handles[] = {gone.handle, self.handle};
  EXPECT_EQ(table->connect(self.transport, handles, Soon()), ANNULUS_TRANSPORT_PEER_LOST);
  table->close(self.transport);
}

TEST_P(FaultTest, AGroupOfOneConnects) { Mesh mesh(GetParam(), 1); }

TEST_P(FaultTest, LeavesNoDescriptorBehind) {
  { Mesh warm(GetParam(), 2); }
  const size_t before = CountDescriptors();
  for (int round = 0; round < 3; ++round) {
    Mesh mesh(GetParam(), 4);
    std::vector<uint8_t> memory(10);
    annulusRequest* receive = mesh.Receive(0, 1, 1, Whole(memory));
    if (round == 1) mesh.table().abort(mesh.at(3), "round 1");
    mesh.Close(0);
    mesh.Finish(receive);
  }
  EXPECT_EQ(CountDescriptors(), before);
}

INSTANTIATE_TEST_SUITE_P(Transports, FaultTest, ::testing::ValuesIn(AllKinds()), KindName);

}  // namespace
}  // namespace annulus::transport
