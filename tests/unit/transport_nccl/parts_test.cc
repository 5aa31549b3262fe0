// SPDX-License-Identifier: Apache-2.0
// The small parts: who is in which communicator, pieces, messages, faults and facts in words.
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/transport/nccl/facts.h"
#include "server/transport/nccl/fault.h"
#include "server/transport/nccl/membership.h"
#include "server/transport/nccl/message.h"
#include "server/transport/nccl/pieces.h"

namespace annulus::transport::nccl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(MembershipTest, EveryRankIsOnceInItsWindowAndOnceAtItsIndex) {
  for (int32_t size = 1; size <= 12; ++size) {
    for (int32_t window = 1; window <= size; ++window) {
      if (size % window != 0) continue;
      for (int32_t rank = 0; rank < size; ++rank) {
        for (const Membership& each : MembershipsOf(rank, size, window)) {
          EXPECT_EQ(each.ranks[static_cast<size_t>(each.index)], rank);
          EXPECT_EQ(IndexOf(each, rank), each.index);
          EXPECT_EQ(each.size(), each.level == ANNULUS_LEVEL_INNER ? window : size / window);
        }
      }
    }
  }
  EXPECT_THAT(MembershipsOf(5, 8, 4)[0].ranks, ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(MembershipsOf(5, 8, 4)[1].ranks, ElementsAre(1, 5));
  EXPECT_EQ(MembershipsOf(5, 8, 8).size(), 1u);
  EXPECT_EQ(MembershipsOf(5, 8, 1).size(), 1u);
  EXPECT_TRUE(MembershipsOf(0, 1, 1).empty());
}

TEST(PiecesTest, BothSidesAreCutWhereverOneIs) {
  EXPECT_THAT(CommonPieces({3, 5}, {4, 4}), ElementsAre(3, 1, 4));
  EXPECT_THAT(CommonPieces({8}, {8}), ElementsAre(8));
  EXPECT_TRUE(CommonPieces({}, {}).empty());
  std::mt19937 random(3);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<uint64_t> a;
    std::vector<uint64_t> b;
    for (auto* list : {&a, &b}) {
      for (uint64_t left = 100; left > 0;) {
        const auto cut = std::uniform_int_distribution<uint64_t>(1, left)(random);
        list->push_back(cut);
        left -= cut;
      }
    }
    const std::vector<uint64_t> pieces = CommonPieces(a, b);
    EXPECT_EQ(std::accumulate(pieces.begin(), pieces.end(), uint64_t{0}), 100u);
    for (const auto* list : {&a, &b}) {
      std::vector<uint8_t> memory(100);
      std::vector<annulusSegment> segments = {{nullptr, 0}};
      size_t at = 0;
      for (const uint64_t length : *list) {
        segments.push_back({memory.data() + at, length});
        at += length;
      }
      std::vector<annulusSegment> placed;
      ASSERT_TRUE(PlacePieces(segments, pieces, &placed));
      at = 0;
      for (size_t i = 0; i < placed.size(); ++i) {
        EXPECT_EQ(placed[i].data, memory.data() + at);
        EXPECT_EQ(placed[i].bytes, pieces[i]);
        at += pieces[i];
      }
    }
  }
}

TEST(PiecesTest, WhatDoesNotFitIsNotPlaced) {
  uint8_t memory[8];
  const std::vector<annulusSegment> segments = {{memory, 3}, {memory + 3, 5}};
  std::vector<annulusSegment> placed;
  EXPECT_FALSE(PlacePieces(segments, {8}, &placed));
  EXPECT_FALSE(PlacePieces(segments, {3, 4}, &placed));
  EXPECT_FALSE(PlacePieces(segments, {3, 5, 1}, &placed));
  EXPECT_FALSE(PlacePieces(segments, {}, &placed));
}

Message Sample() {
  return {.type = MessageType::kReport,
          .number = ~uint64_t{0},
          .text = std::string("a\0b", 3),
          .operations = {{1, true, 3, uint64_t{1} << 63, {1, 300, uint64_t{1} << 40}},
                         {2, false, 0, 0, {}}}};
}

TEST(MessageTest, ComesBackAsItWas) {
  for (const Message& message : {Sample(), Message{}, Message{.type = MessageType::kOver}}) {
    EXPECT_EQ(DecodeMessage(EncodeMessage(message)), message);
  }
}

TEST(MessageTest, NothingShortLongOrDamagedHarms) {
  const std::string good = EncodeMessage(Sample());
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(DecodeMessage(good.substr(0, length)).has_value()) << length;
  }
  EXPECT_FALSE(DecodeMessage(good + "x").has_value());
  std::mt19937 random(5);
  for (int trial = 0; trial < 20'000; ++trial) {
    std::string bad = good;
    for (int flips = 0; flips < 3; ++flips) {
      bad[std::uniform_int_distribution<size_t>(0, bad.size() - 1)(random)] =
          static_cast<char>(random());
    }
    const std::optional<Message> read = DecodeMessage(bad);
    if (!read.has_value()) continue;
    EXPECT_EQ(DecodeMessage(EncodeMessage(*read)), read);
  }
}

TEST(FaultTest, CrossesTheControlTransportsWords) {
  const Fault fault{ANNULUS_TRANSPORT_DEADLINE, 3, "receive from peer 3: late"};
  const Fault seen{ANNULUS_TRANSPORT_ABORTED, 1, "rank 1 reports: aborted: " + EncodeFault(fault)};
  const Fault decoded = DecodeFault(seen);
  EXPECT_EQ(decoded.status, ANNULUS_TRANSPORT_DEADLINE);
  EXPECT_EQ(decoded.suspect, 3);
  EXPECT_EQ(decoded.text, "rank 1 reports: receive from peer 3: late");
  const Fault own{ANNULUS_TRANSPORT_PEER_LOST, 2, "peer 2 was silent for 1.0 s"};
  EXPECT_EQ(DecodeFault(own).text, own.text);
  EXPECT_EQ(DecodeFault(own).suspect, 2);
  // Nobody is named: whoever called abort is the one to ask, and no status is taken on trust.
  const Fault anonymous{ANNULUS_TRANSPORT_OK, -1, "enough"};
  EXPECT_EQ(DecodeFault({ANNULUS_TRANSPORT_ABORTED, 1, EncodeFault(anonymous)}).suspect, 1);
  EXPECT_EQ(DecodeFault({ANNULUS_TRANSPORT_ABORTED, 1, EncodeFault(anonymous)}).status,
            ANNULUS_TRANSPORT_ABORTED);
}

TEST(FactsTest, ADifferentVersionIsRefusedWithBoth) {
  const Facts own{1, 22809, 13000, "card"};
  Facts other = own;
  EXPECT_EQ(WhyRefused(own, 0, EncodeFacts(other), 3), "");
  other.driver_version = 12080;
  EXPECT_EQ(WhyRefused(own, 0, EncodeFacts(other), 3), "");
  other.nccl_version = 23007;
  const std::string refusal = WhyRefused(own, 0, EncodeFacts(other), 3);
  EXPECT_THAT(refusal, HasSubstr("rank 3 has NCCL 2.30.7, rank 0 has 2.28.9"));
  other.wire_version = 2;
  EXPECT_THAT(WhyRefused(own, 0, EncodeFacts(other), 3), HasSubstr("speaks version 2"));
  EXPECT_NE(WhyRefused(own, 0, "", 3), "");
}

}  // namespace
}  // namespace annulus::transport::nccl
