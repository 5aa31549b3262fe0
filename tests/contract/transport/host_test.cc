// SPDX-License-Identifier: Apache-2.0
// What is the host transport's own: damage on the way, strangers at the door, paths.
#include <fcntl.h>
#include <sys/socket.h>

#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/transport/host/crc32c.h"
#include "server/transport/host/fault_injection.h"
#include "server/transport/host/frame.h"
#include "server/transport/host/handle.h"
#include "server/transport/host/host_plugin.h"
#include "server/transport/host/reception.h"
#include "server/transport/host/socket.h"
#include "tests/contract/transport/kinds.h"

namespace annulus::transport {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

annulusTransportStats StatsOf(const Mesh& mesh, int32_t rank) {
  annulusTransportStats stats{};
  stats.struct_size = sizeof(stats);
  mesh.table().stats(mesh.at(rank), &stats);
  return stats;
}

class HostTest : public ::testing::TestWithParam<Kind> {};

TEST_P(HostTest, NamesThePath) {
  Mesh mesh(GetParam(), 2);
  EXPECT_STREQ(mesh.table().path(mesh.at(0), 1), GetParam().one_host ? "shm" : "tcp");
  EXPECT_STREQ(mesh.table().path(mesh.at(0), 0), "self");
}

TEST_P(HostTest, DamageOnTheWayIsNoticedAndEndsTheTransport) {
  for (const size_t bytes : {size_t{100}, size_t{1'000'000}}) {
    Mesh mesh(GetParam(), 3);
    std::vector<uint8_t> sent = Pattern(1, bytes);
    std::vector<uint8_t> got(bytes);
    std::vector<uint8_t> other(1);
    annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
    annulusRequest* bystander = mesh.Receive(2, 0, 1, Whole(other));
    ChunkDamage::Arm(1);
    annulusRequest* send = mesh.Send(0, 1, 1, Whole(sent));
    EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_CORRUPTED);
    EXPECT_EQ(mesh.Finish(bystander).status, ANNULUS_TRANSPORT_CORRUPTED);
    mesh.Finish(send);  // may have given all its bytes away before
    int32_t suspect = -1;
    EXPECT_THAT(mesh.LastError(1, &suspect),
                AllOf(HasSubstr("checksum"), HasSubstr("peer 0"), HasSubstr("tag 1")));
    EXPECT_EQ(suspect, 0);
    EXPECT_EQ(StatsOf(mesh, 1).corrupted, 1u);
    ChunkDamage::Arm(0);
  }
}

TEST_P(HostTest, EightRanksConnect) {
  for (int round = 0; round < 3; ++round) {
    Mesh mesh(GetParam(), 8);
  }
}

INSTANTIATE_TEST_SUITE_P(Transports, HostTest, ::testing::Values(HostShm(), HostTcp()), KindName);

// A stranger at the door of rank 0 of a group of two whose second rank is late.
class StrangerTest : public ::testing::Test {
 protected:
  StrangerTest() {
    const Kind kind = HostShm();
    ranks_[0] = OpenOne(kind, {.rank = 0, .size = 2});
    ranks_[1] = OpenOne(kind, {.rank = 1, .size = 2});
    const annulusTransportHandle handles[] = {ranks_[0].handle, ranks_[1].handle};
    self_ = *DecodeHandle(ranks_[0].handle);
    peer_ = *DecodeHandle(ranks_[1].handle);
    connecting_ = std::thread([this, handles] {
      EXPECT_EQ(HostPlugin()->connect(ranks_[0].transport, handles, Soon()), ANNULUS_TRANSPORT_OK);
    });
  }
  ~StrangerTest() override {
    const annulusTransportHandle handles[] = {ranks_[0].handle, ranks_[1].handle};
    EXPECT_EQ(HostPlugin()->connect(ranks_[1].transport, handles, Soon()), ANNULUS_TRANSPORT_OK)
        << "strangers must not keep the right one out";
    connecting_.join();
    HostPlugin()->close(ranks_[1].transport);
    HostPlugin()->close(ranks_[0].transport);
  }

  Frame Hello() const {
    return {.type = FrameType::kHello,
            .source = 1,
            .length = kHelloBytes,
            .group = self_.group,
            .epoch = self_.epoch,
            .value = 2};
  }
  HelloBody Body() const {
    return {.caller_nonce = peer_.nonce,
            .callee_nonce = self_.nonce,
            .slot_bytes = kChunkBytes,
            .slot_count = 4};
  }

  // Calls with this greeting and returns the reason of the refusal.
  std::string Call(Frame frame, const HelloBody& body) {
    const auto payload = EncodeHello(body);
    frame.payload_crc = Crc32cOf(payload.data(), payload.size());
    const FrameHeader header = EncodeFrame(frame);
    std::vector<uint8_t> bytes(header.begin(), header.end());
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return CallWith(bytes);
  }

  std::string CallWith(const std::vector<uint8_t>& bytes) {
    const UniqueFd fd = DialUnix(self_);
    EXPECT_TRUE(fd);
    EXPECT_TRUE(SendWithFd(fd.get(), bytes.data(), bytes.size(), -1));
    std::string answer;
    char piece[1024];
    const int flags = ::fcntl(fd.get(), F_GETFL);
    ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK);
    for (ssize_t got = 1; got > 0;) {
      got = ::recv(fd.get(), piece, sizeof(piece), 0);
      if (got > 0) answer.append(piece, static_cast<size_t>(got));
    }
    return answer.substr(std::min(answer.size(), kFrameBytes));
  }

  annulusTransportStats Stats() const {
    annulusTransportStats stats{};
    stats.struct_size = sizeof(stats);
    HostPlugin()->stats(ranks_[0].transport, &stats);
    return stats;
  }

  OpenRank ranks_[2];
  HandleInfo self_;
  HandleInfo peer_;
  std::thread connecting_;
};

TEST_F(StrangerTest, AnotherEpochIsRefusedAndCounted) {
  Frame hello = Hello();
  hello.epoch = 6;
  EXPECT_EQ(Call(hello, Body()), "epoch 6, expected 7");
  EXPECT_EQ(Stats().refused_connections, 1u);
  EXPECT_EQ(Stats().stale_epoch, 1u);
}

TEST_F(StrangerTest, AWrongSecretIsRefused) {
  HelloBody body = Body();
  body.caller_nonce[3] ^= 1;
  EXPECT_EQ(Call(Hello(), body), "wrong secret");
  body = Body();
  body.callee_nonce[15] ^= 1;
  EXPECT_EQ(Call(Hello(), body), "wrong secret");
  EXPECT_EQ(Stats().refused_connections, 2u);
  EXPECT_EQ(Stats().stale_epoch, 0u);
}

TEST_F(StrangerTest, AnotherGroupSizeOrRankIsRefused) {
  Frame hello = Hello();
  hello.group ^= 1;
  EXPECT_EQ(Call(hello, Body()), "another group");
  hello = Hello();
  hello.value = 3;
  EXPECT_THAT(Call(hello, Body()), HasSubstr("3 ranks, expected 2"));
  for (const int32_t rank : {-1, 0, 2}) {
    hello = Hello();
    hello.source = rank;
    EXPECT_THAT(Call(hello, Body()), HasSubstr("does not call"));
  }
}

TEST_F(StrangerTest, TheRightGreetingWithoutTheRingIsRefused) {
  EXPECT_THAT(Call(Hello(), Body()), HasSubstr("ring"));
}

TEST_F(StrangerTest, NoiseIsRefused) {
  std::mt19937 random(3);
  for (int call = 0; call < 20; ++call) {
    std::vector<uint8_t> bytes(kGreetingBytes);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    EXPECT_EQ(CallWith(bytes), "not a frame (magic)");
  }
  EXPECT_EQ(Stats().refused_connections, 20u);
}

TEST_F(StrangerTest, CallersThatSayNothingDoNotBlockTheDoor) {
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 60; ++i) silent.push_back(DialUnix(self_));
  EXPECT_EQ(CallWith(std::vector<uint8_t>(kGreetingBytes)), "not a frame (magic)");
}

}  // namespace
}  // namespace annulus::transport
