// SPDX-License-Identifier: Apache-2.0
#include "gtest/gtest.h"
#include "server/transport/host/crc32c.h"
#include "server/transport/host/reception.h"

namespace annulus::transport {
namespace {

class GreetingTest : public ::testing::Test {
 protected:
  GreetingTest() : handles_(3) {
    for (int32_t rank = 0; rank < 3; ++rank) {
      HandleInfo& info = handles_[static_cast<size_t>(rank)];
      info.rank = rank;
      info.size = 3;
      info.group = 42;
      info.epoch = 7;
      info.host = rank == 2 ? 2 : 1;  // ranks 0 and 1 share a host
      info.nonce.fill(static_cast<uint8_t>(rank + 1));
    }
  }

  Frame Hello(int32_t from) const {
    return {.type = FrameType::kHello,
            .source = from,
            .length = kHelloBytes,
            .group = 42,
            .epoch = 7,
            .value = 3};
  }

  HelloBody Body(int32_t from, int32_t to) const {
    const HandleInfo& caller = handles_[static_cast<size_t>(from)];
    const HandleInfo& callee = handles_[static_cast<size_t>(to)];
    return {.caller_nonce = caller.nonce,
            .callee_nonce = callee.nonce,
            .slot_bytes = caller.host == callee.host ? static_cast<uint32_t>(kChunkBytes) : 0,
            .slot_count = 0};
  }

  Verdict Judge(Frame frame, const HelloBody& body, int32_t self, bool over_unix) const {
    const auto payload = EncodeHello(body);
    frame.payload_crc = Crc32cOf(payload.data(), payload.size());
    const FrameHeader header = EncodeFrame(frame);
    std::array<uint8_t, kGreetingBytes> bytes;
    std::copy(header.begin(), header.end(), bytes.begin());
    std::copy(payload.begin(), payload.end(), bytes.begin() + kFrameBytes);
    return JudgeGreeting(bytes, handles_, self, over_unix);
  }

  std::vector<HandleInfo> handles_;
};

TEST_F(GreetingTest, ThePeerIsWelcome) {
  EXPECT_EQ(Judge(Hello(1), Body(1, 0), 0, true).rank, 1);
  EXPECT_EQ(Judge(Hello(2), Body(2, 0), 0, false).rank, 2);
  EXPECT_EQ(Judge(Hello(2), Body(2, 1), 1, false).rank, 2);
}

TEST_F(GreetingTest, OnlyHigherRanksCall) {
  EXPECT_LT(Judge(Hello(0), Body(0, 1), 1, true).rank, 0);
  EXPECT_LT(Judge(Hello(1), Body(1, 1), 1, true).rank, 0);
}

TEST_F(GreetingTest, AnotherEpochIsStale) {
  Frame frame = Hello(1);
  frame.epoch = 8;
  const Verdict verdict = Judge(frame, Body(1, 0), 0, true);
  EXPECT_LT(verdict.rank, 0);
  EXPECT_TRUE(verdict.stale);
}

TEST_F(GreetingTest, TheSecretOfAnotherRankIsNotEnough) {
  HelloBody body = Body(1, 0);
  body.caller_nonce = handles_[2].nonce;
  EXPECT_EQ(Judge(Hello(1), body, 0, true).refusal, "wrong secret");
  body = Body(1, 0);
  body.callee_nonce = handles_[1].nonce;
  EXPECT_EQ(Judge(Hello(1), body, 0, true).refusal, "wrong secret");
}

TEST_F(GreetingTest, TheSocketMustFitTheHost) {
  EXPECT_LT(Judge(Hello(1), Body(1, 0), 0, false).rank, 0);
  EXPECT_LT(Judge(Hello(2), Body(2, 0), 0, true).rank, 0);
}

TEST_F(GreetingTest, OtherFramesAndDamageAreRefused) {
  Frame frame = Hello(1);
  frame.type = FrameType::kBeat;
  frame.length = 0;
  EXPECT_EQ(Judge(frame, Body(1, 0), 0, true).refusal, "not a greeting");
  HelloBody body = Body(1, 0);
  body.slot_bytes = 4096;
  EXPECT_EQ(Judge(Hello(1), body, 0, true).refusal, "another ring geometry");
}

}  // namespace
}  // namespace annulus::transport
