// SPDX-License-Identifier: Apache-2.0
// What is the NCCL transport's own, over the model: two communicators, groups, versions, endings.
#include <chrono>
#include <cstdlib>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/transport/host/clock.h"
#include "server/transport/nccl/communicator.h"
#include "server/transport/nccl/profiler.h"
#include "tests/unit/transport_nccl/fake_gpu.h"
#include "tests/unit/transport_nccl/ranks.h"

namespace annulus::transport::nccl {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

// A rank that leaves a communicator behind goes on in other threads for a while.
std::string AliveInTheEnd() {
  for (int tries = 0; tries < 2000 && !FakeGpu::Get().Alive().empty(); ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return FakeGpu::Get().Alive();
}

class NcclTransportTest : public ::testing::Test {
 protected:
  NcclTransportTest() {
    ::setenv("ANNULUS_NCCL_ABORT_SECONDS", "0.3", 1);
    Arrange({});
  }
  ~NcclTransportTest() override {
    FakeGpu::Get().ReleaseHangs();
    EXPECT_EQ(AliveInTheEnd(), "");
    EXPECT_THAT(FakeGpu::Get().violations(), ::testing::IsEmpty());
  }

  static void Arrange(std::vector<FakeFault> faults) {
    FakeGpu::Get().Arrange(7, std::move(faults));
  }

  static std::vector<uint8_t> Bytes(size_t count, int seed) {
    std::vector<uint8_t> bytes(count);
    for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(i * 31 + i / 251 + seed);
    return bytes;
  }
};

TEST_F(NcclTransportTest, WindowsHaveAnInnerAndIndicesAnOuterCommunicator) {
  Ranks ranks(6, 3);
  ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
  EXPECT_STREQ(ranks.table().path(ranks.at(4), 3), "nccl inner");
  EXPECT_STREQ(ranks.table().path(ranks.at(4), 1), "nccl outer");
  EXPECT_STREQ(ranks.table().path(ranks.at(4), 4), "self");
  EXPECT_STREQ(ranks.table().path(ranks.at(4), 0), "none");
  std::vector<uint8_t> inner = Bytes(70'000, 1);
  std::vector<uint8_t> outer = Bytes(90'000, 2);
  std::vector<uint8_t> inner_got(inner.size());
  std::vector<uint8_t> outer_got(outer.size());
  annulusRequest* requests[] = {ranks.Send(4, 3, 1, inner, InMs(60'000)),
                                ranks.Send(4, 1, 1, outer, InMs(60'000)),
                                ranks.Receive(3, 4, 1, inner_got, InMs(60'000)),
                                ranks.Receive(1, 4, 1, outer_got, InMs(60'000))};
  for (annulusRequest* request : requests) {
    EXPECT_EQ(ranks.Finish(request).status, ANNULUS_TRANSPORT_OK);
  }
  EXPECT_EQ(inner, inner_got);
  EXPECT_EQ(outer, outer_got);
  annulusRequest* request = nullptr;
  const annulusSegment segment{inner.data(), 1};
  EXPECT_EQ(ranks.table().isend(ranks.at(4), 0, 2, &segment, 1, InMs(1000), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_THAT(ranks.LastError(4), HasSubstr("neither in the window"));
}

TEST_F(NcclTransportTest, MembersOfACommunicatorArePeersAllOrNone) {
  Ranks ranks(6, 3);
  const auto connect_without = [&](std::vector<size_t> strangers) {
    std::vector<annulusTransportHandle> handles = ranks.handles();
    for (const size_t stranger : strangers) handles[stranger] = {};
    return ranks.table().connect(ranks.at(4), handles.data(), InMs(60'000));
  };
  EXPECT_EQ(connect_without({5}), ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_EQ(ranks.LastError(4),
            "inner communicator of window 1 (ranks 3, 4, 5): expected all of them as peers of rank "
            "4 or none, but the handles of 5 alone are zeros");
  EXPECT_EQ(connect_without({1, 3}), ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  // Nothing has begun by that.
  EXPECT_TRUE(ranks.ConnectsAll()) << ranks.LastError(4);
}

TEST_F(NcclTransportTest, ACommunicatorThatIsLeftOutComesUpNowhereAndTakesMemoryAllTheSame) {
  std::vector<uint8_t> memory(4096);
  Ranks ranks(4, 2);
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < ranks.size(); ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<annulusTransportHandle> inside = ranks.handles();
      inside[static_cast<size_t>((rank + 2) % 4)] = {};
      EXPECT_EQ(ranks.table().connect(ranks.at(rank), inside.data(), InMs(60'000)),
                ANNULUS_TRANSPORT_OK);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_STREQ(ranks.table().path(ranks.at(0), 1), "nccl inner");
  EXPECT_STREQ(ranks.table().path(ranks.at(0), 2), "none");
  EXPECT_THAT(FakeGpu::Get().Alive(), HasSubstr("4 communicators"));
  EXPECT_EQ(ranks.table().register_memory(ranks.at(0), memory.data(), memory.size()),
            ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(ranks.table().deregister_memory(ranks.at(0), memory.data()), ANNULUS_TRANSPORT_OK);
  annulusRequest* waiting = ranks.Receive(3, 2, 1, memory, InMs(60'000));
  ranks.table().abort(ranks.at(2), "enough");
  EXPECT_EQ(ranks.Finish(waiting).status, ANNULUS_TRANSPORT_ABORTED);
}

TEST_F(NcclTransportTest, AWindowOfOneIsOneRing) {
  Ranks ranks(3, 1);
  ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
  EXPECT_STREQ(ranks.table().path(ranks.at(0), 2), "nccl outer");
}

TEST_F(NcclTransportTest, WhatIsPostedInAGroupGoesTogether) {
  Ranks ranks(4, 0);
  ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
  std::vector<std::vector<uint8_t>> sent;
  std::vector<std::vector<uint8_t>> got(4, std::vector<uint8_t>(50'000));
  std::vector<annulusRequest*> requests;
  for (int32_t rank = 0; rank < 4; ++rank) sent.push_back(Bytes(50'000, rank));
  for (int32_t rank = 0; rank < 4; ++rank) {
    const auto own = static_cast<size_t>(rank);
    ranks.table().group_begin(ranks.at(rank));
    requests.push_back(ranks.Send(rank, (rank + 1) % 4, 5, sent[own], InMs(60'000)));
    requests.push_back(ranks.Receive(rank, (rank + 3) % 4, 5, got[own], InMs(60'000)));
    EXPECT_EQ(ranks.table().group_end(ranks.at(rank)), ANNULUS_TRANSPORT_OK);
    int32_t done = 0;
    ranks.table().test(requests.front(), &done, nullptr);
    if (rank < 3) {
      EXPECT_EQ(done, 0) << "before the last rank has joined in";
    }
  }
  std::vector<annulusCompletion> ends;
  for (annulusRequest* request : requests) ends.push_back(ranks.Finish(request));
  for (size_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(ends[2 * rank].status, ANNULUS_TRANSPORT_OK);
    EXPECT_EQ(ends[2 * rank].start_ns, ends[2 * rank + 1].start_ns) << "one group call";
    EXPECT_EQ(got[rank], sent[(rank + 3) % 4]);
  }
  EXPECT_EQ(ranks.table().group_end(ranks.at(0)), ANNULUS_TRANSPORT_INVALID_ARGUMENT);
}

// The stamps of a completion are those of its kernels, moved to our clock as one.
TEST_F(NcclTransportTest, WithNcclsProfilerStampsAreThoseOfTheKernels) {
  FakeGpu::Get().set_profiled(true);
  Ranks ranks(2, 2);
  ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
  const auto sender = ProfiledComm::Find("model/1/inner", 0);
  const auto receiver = ProfiledComm::Find("model/1/inner", 1);
  ASSERT_TRUE(sender.has_value() && receiver.has_value());
  for (uint64_t tag = 0; tag < 20; ++tag) {
    std::vector<uint8_t> sent = Bytes(200'000 * (tag + 1), 3);
    std::vector<uint8_t> got(sent.size());
    const int64_t before_ns = NowNs();
    annulusRequest* const send = ranks.Send(0, 1, tag, sent, InMs(60'000));
    annulusRequest* const receive = ranks.Receive(1, 0, tag, got, InMs(60'000));
    for (const auto& [end, comm] :
         {std::pair(ranks.Finish(send), *sender), std::pair(ranks.Finish(receive), *receiver)}) {
      ASSERT_EQ(end.status, ANNULUS_TRANSPORT_OK);
      const auto span = comm.SpanOf(comm.posted() - 1, comm.posted());
      ASSERT_TRUE(span.has_value());
      EXPECT_EQ(end.end_ns - end.start_ns, static_cast<int64_t>(span->stop_ns - span->start_ns));
      EXPECT_LE(before_ns, end.start_ns);
      EXPECT_LE(end.end_ns, NowNs());
    }
    EXPECT_EQ(sent, got);
  }
  EXPECT_EQ(sender->dropped() + receiver->dropped(), 0u);
}

TEST_F(NcclTransportTest, RefusesOptionsThatCannotBe) {
  annulusTransportOptions options{};
  options.struct_size = sizeof(options);
  options.group = "model";
  options.size = 6;
  options.host_id = "host";
  options.window_size = 4;
  annulusTransport* transport = nullptr;
  annulusTransportHandle handle{};
  EXPECT_EQ(Ranks(0, 1).table().open(&options, &transport, &handle),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  options.window_size = 3;
  options.device_ordinal = -1;
  EXPECT_EQ(Ranks(0, 1).table().open(&options, &transport, &handle),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
}

TEST_F(NcclTransportTest, AnotherVersionOfNcclIsRefusedEverywhereWithBoth) {
  const annulusTransportV1& table = Ranks(0, 1).table();
  std::vector<annulusTransport*> transports(2);
  std::vector<annulusTransportHandle> handles(2);
  for (int32_t rank = 0; rank < 2; ++rank) {
    annulusTransportOptions options{};
    options.struct_size = sizeof(options);
    options.group = "model";
    options.rank = rank;
    options.size = 2;
    options.host_id = "host";
    FakeGpu::Get().set_version(rank == 0 ? 22809 : 23007);
    ASSERT_EQ(table.open(&options, &transports[static_cast<size_t>(rank)],
                         &handles[static_cast<size_t>(rank)]),
              ANNULUS_TRANSPORT_OK);
  }
  std::thread other([&] {
    EXPECT_EQ(table.connect(transports[1], handles.data(), InMs(60'000)),
              ANNULUS_TRANSPORT_REFUSED);
  });
  EXPECT_EQ(table.connect(transports[0], handles.data(), InMs(60'000)), ANNULUS_TRANSPORT_REFUSED);
  other.join();
  for (annulusTransport* transport : transports) {
    char text[512] = "";
    int32_t suspect = -1;
    table.last_error(transport, text, sizeof(text), &suspect);
    EXPECT_THAT(text, HasSubstr("rank 1 has NCCL 2.30.7, rank 0 has 2.28.9"));
    EXPECT_EQ(suspect, 1);
    table.close(transport);
  }
}

TEST_F(NcclTransportTest, ALibraryThatIsMissingIsToldToAllRanks) {
  FakeGpu::Get().set_missing("no libnccl here");
  Ranks ranks(2, 0);
  FakeGpu::Get().set_missing("");
  EXPECT_THAT(ranks.Connect(InMs(60'000)), Each(ANNULUS_TRANSPORT_RESOURCE));
  EXPECT_THAT(ranks.LastError(0), HasSubstr("no libnccl here"));
  EXPECT_THAT(ranks.LastError(1), HasSubstr("no libnccl here"));
}

TEST_F(NcclTransportTest, AMemberThatClosesEndsItsCommunicatorsInGoodOrder) {
  Ranks ranks(4, 2);
  ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
  std::vector<uint8_t> sent = Bytes(3'000'000, 1);
  std::vector<uint8_t> got(sent.size());
  annulusRequest* receive = ranks.Receive(1, 0, 1, got, InMs(60'000));
  annulusRequest* waiting = ranks.Receive(1, 0, 2, sent, InMs(60'000));
  EXPECT_EQ(ranks.Finish(ranks.Send(0, 1, 1, sent, InMs(60'000))).status, ANNULUS_TRANSPORT_OK);
  ranks.Close(0);
  EXPECT_EQ(ranks.Finish(receive).status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(sent, got);
  EXPECT_EQ(ranks.Finish(waiting).status, ANNULUS_TRANSPORT_PEER_LOST);
  EXPECT_EQ(ranks.Finish(ranks.Receive(1, 0, 3, got, InMs(60'000))).status,
            ANNULUS_TRANSPORT_PEER_LOST);
  int32_t suspect = -1;
  EXPECT_THAT(ranks.LastError(1, &suspect), HasSubstr("peer 0 has closed its transport"));
  EXPECT_EQ(suspect, 0);
  // Ranks 1 and 3 meet in a communicator that rank 0 was no member of.
  receive = ranks.Receive(1, 3, 4, got, InMs(60'000));
  EXPECT_EQ(ranks.Finish(ranks.Send(3, 1, 4, sent, InMs(60'000))).status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(ranks.Finish(receive).status, ANNULUS_TRANSPORT_OK);
}

TEST_F(NcclTransportTest, RegistersWithBothCommunicators) {
  std::vector<uint8_t> memory(4096);
  std::vector<uint8_t> early(4096);
  Ranks ranks(4, 2);
  EXPECT_EQ(ranks.table().register_memory(ranks.at(0), early.data(), early.size()),
            ANNULUS_TRANSPORT_OK);
  ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
  EXPECT_EQ(ranks.table().register_memory(ranks.at(0), memory.data(), memory.size()),
            ANNULUS_TRANSPORT_OK);
  EXPECT_THAT(FakeGpu::Get().Alive(), HasSubstr("4 registrations"));
  EXPECT_EQ(ranks.table().deregister_memory(ranks.at(0), memory.data()), ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(ranks.table().deregister_memory(ranks.at(0), memory.data()),
            ANNULUS_TRANSPORT_RESOURCE);
  EXPECT_THAT(FakeGpu::Get().Alive(), HasSubstr("2 registrations"));
  ranks.table().abort(ranks.at(1), "enough");  // what is registered goes before the communicator
}

// A peer of memory that is not registered waits for ever, so nobody may go on without.
TEST_F(NcclTransportTest, ARefusedRegistrationEndsTheTransportOfAll) {
  std::vector<uint8_t> memory(4096);
  Ranks ranks(2, 0);
  ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
  Arrange({{FakeCall::kRegister, 0, FakeAction::kFail}});
  EXPECT_EQ(ranks.table().register_memory(ranks.at(0), memory.data(), memory.size()),
            ANNULUS_TRANSPORT_RESOURCE);
  std::vector<uint8_t> got(64);
  EXPECT_NE(ranks.Finish(ranks.Receive(1, 0, 1, got, InMs(60'000))).status, ANNULUS_TRANSPORT_OK);
  EXPECT_THAT(ranks.LastError(1), HasSubstr("ncclCommRegister"));
  EXPECT_THAT(FakeGpu::Get().Alive(), Not(HasSubstr("registrations")));
}

TEST_F(NcclTransportTest, ARefusedRegistrationBeforeTheConnectionFailsIt) {
  std::vector<uint8_t> memory(4096);
  Arrange({{FakeCall::kRegister, 0, FakeAction::kFail}});
  Ranks ranks(2, 0);
  EXPECT_EQ(ranks.table().register_memory(ranks.at(0), memory.data(), memory.size()),
            ANNULUS_TRANSPORT_OK);
  EXPECT_FALSE(ranks.ConnectsAll());
  EXPECT_THAT(ranks.LastError(1), HasSubstr("ncclCommRegister"));
}

TEST_F(NcclTransportTest, AnInitThatHangsEndsAtTheDeadlineAndNamesWhoIsMissing) {
  Arrange({{FakeCall::kInit, 2, FakeAction::kHang}});
  Ranks ranks(3, 0);
  EXPECT_THAT(ranks.Connect(InMs(200)), Each(ANNULUS_TRANSPORT_DEADLINE));
  for (int32_t rank = 0; rank < 3; ++rank) {
    EXPECT_THAT(ranks.LastError(rank), HasSubstr("inner communicator: no word from rank"));
  }
  const int before = Communicator::left_behind();
  ranks.CloseAll();
  EXPECT_EQ(Communicator::left_behind(), before + 1);
}

TEST_F(NcclTransportTest, ADamagedFirstPayloadNamesItsSender) {
  Arrange({{FakeCall::kTransfer, 0, FakeAction::kDamage}});
  Ranks ranks(2, 0);
  EXPECT_THAT(ranks.Connect(InMs(60'000)), Each(ANNULUS_TRANSPORT_CORRUPTED));
  EXPECT_THAT(ranks.LastError(0), HasSubstr("the first payload from peer"));
  int32_t first = -1;
  int32_t second = -1;
  ranks.LastError(0, &first);
  ranks.LastError(1, &second);
  EXPECT_GE(first, 0);
  EXPECT_EQ(first, second);
}

TEST_F(NcclTransportTest, ATransferThatNeverEndsEndsTheTransportAtItsDeadline) {
  constexpr int kWarmSends = 6;
  for (const bool can_revoke : {true, false}) {
    Arrange({{FakeCall::kTransfer, kWarmSends, FakeAction::kHang}});
    FakeGpu::Get().set_can_revoke(can_revoke);
    Ranks ranks(3, 0);
    ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
    std::vector<uint8_t> sent = Bytes(100, 1);
    std::vector<uint8_t> got(100, 0xEE);
    std::vector<uint8_t> other(100);
    annulusRequest* bystander = ranks.Receive(2, 0, 9, other, InMs(60'000));
    annulusRequest* send = ranks.Send(0, 1, 1, sent, InMs(60'000));
    EXPECT_EQ(ranks.Finish(ranks.Receive(1, 0, 1, got, InMs(50))).status,
              ANNULUS_TRANSPORT_DEADLINE);
    EXPECT_EQ(ranks.Finish(send).status, ANNULUS_TRANSPORT_DEADLINE);
    EXPECT_EQ(ranks.Finish(bystander).status, ANNULUS_TRANSPORT_DEADLINE);
    for (int32_t rank = 0; rank < 3; ++rank) {
      int32_t suspect = -1;
      EXPECT_THAT(ranks.LastError(rank, &suspect),
                  HasSubstr("receive from peer 0, tag 1: started"));
      EXPECT_EQ(suspect, 0);
    }
    EXPECT_EQ(got, std::vector<uint8_t>(100, 0xEE));
  }
}

TEST_F(NcclTransportTest, AnAbortThatHangsIsLeftBehindAndSaid) {
  Arrange({{FakeCall::kRevoke, 0, FakeAction::kHang}, {FakeCall::kTransfer, 4, FakeAction::kHang}});
  Ranks ranks(2, 0);
  ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
  std::vector<uint8_t> bytes = Bytes(100, 1);
  std::vector<uint8_t> got(100);
  annulusRequest* send = ranks.Send(0, 1, 1, bytes, InMs(60'000));
  annulusRequest* receive = ranks.Receive(1, 0, 1, got, InMs(50));
  EXPECT_EQ(ranks.Finish(send).status, ANNULUS_TRANSPORT_DEADLINE);
  EXPECT_EQ(ranks.Finish(receive).status, ANNULUS_TRANSPORT_DEADLINE);
  const std::string words = ranks.LastError(0) + ranks.LastError(1);
  EXPECT_THAT(words, HasSubstr("may still be written to"));
  const int before = Communicator::left_behind();
  ranks.CloseAll();
  EXPECT_EQ(Communicator::left_behind(), before + 1);
}

TEST_F(NcclTransportTest, AnErrorOfNcclEndsAllRanksAndTheNextEpochWorks) {
  Arrange({{FakeCall::kSend, 4, FakeAction::kFail}});
  {
    Ranks ranks(2, 0, 1);
    ASSERT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
    std::vector<uint8_t> bytes = Bytes(100, 1);
    std::vector<uint8_t> got(100);
    annulusRequest* send = ranks.Send(0, 1, 1, bytes, InMs(60'000));
    annulusRequest* receive = ranks.Receive(1, 0, 1, got, InMs(60'000));
    EXPECT_EQ(ranks.Finish(send).status, ANNULUS_TRANSPORT_ABORTED);
    EXPECT_EQ(ranks.Finish(receive).status, ANNULUS_TRANSPORT_ABORTED);
    EXPECT_THAT(ranks.LastError(1), HasSubstr("ncclSend: result 3 of the model"));
  }
  Ranks ranks(2, 0, 2);
  EXPECT_TRUE(ranks.ConnectsAll()) << ranks.LastError(0);
}

}  // namespace
}  // namespace annulus::transport::nccl
