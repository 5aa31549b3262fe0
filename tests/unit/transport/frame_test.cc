// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/frame.h"

#include <cstring>

#include "gtest/gtest.h"
#include "server/transport/host/crc32c.h"

namespace annulus::transport {
namespace {

// A frame with every field set to something of its own.
Frame Data() {
  return {.type = FrameType::kData,
          .source = 3,
          .length = 1000,
          .group = 0x1122334455667788,
          .epoch = 9,
          .tag = 0xAABBCCDDEEFF0011,
          .offset = 4096,
          .value = 77,
          .payload_crc = 0xDEADBEEF};
}

// Sets one byte and makes the checksum right again.
FrameHeader Forged(FrameHeader bytes, size_t at, uint8_t value) {
  bytes[at] = value;
  const uint32_t crc = Crc32cOf(bytes.data(), 60);
  std::memcpy(bytes.data() + 60, &crc, sizeof(crc));
  return bytes;
}

FrameError Error(const FrameHeader& bytes) {
  Frame frame;
  return DecodeFrame(bytes, &frame);
}

TEST(Crc32cTest, KnownValues) {
  EXPECT_EQ(Crc32cOf("123456789", 9), 0xE3069283u);  // RFC 3720, B.4, and the usual check value
  EXPECT_EQ(Crc32cOf("", 0), 0u);
  const std::array<uint8_t, 32> zeros{};
  EXPECT_EQ(Crc32cOf(zeros.data(), zeros.size()), 0x8A9136AAu);
}

TEST(Crc32cTest, PiecesMakeTheWhole) {
  Crc32c crc;
  crc.Add("1234", 4);
  crc.Add("", 0);
  crc.Add("56789", 5);
  EXPECT_EQ(crc.value(), 0xE3069283u);
}

TEST(FrameTest, SurvivesTheWire) {
  Frame got;
  ASSERT_EQ(DecodeFrame(EncodeFrame(Data()), &got), FrameError::kNone);
  EXPECT_EQ(got, Data());
}

TEST(FrameTest, EverySingleBitFlipIsNoticed) {
  const FrameHeader good = EncodeFrame(Data());
  for (size_t bit = 0; bit < kFrameBytes * 8; ++bit) {
    FrameHeader bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    EXPECT_NE(Error(bad), FrameError::kNone) << "bit " << bit;
  }
}

TEST(FrameTest, SwappedWordsAreNoticed) {
  FrameHeader bad = EncodeFrame(Data());
  std::swap(bad[32], bad[34]);  // a TCP checksum does not see this
  std::swap(bad[33], bad[35]);
  EXPECT_EQ(Error(bad), FrameError::kChecksum);
}

TEST(FrameTest, SaysWhatIsWrong) {
  const FrameHeader good = EncodeFrame(Data());
  EXPECT_EQ(Error(Forged(good, 0, 'B')), FrameError::kMagic);
  EXPECT_EQ(Error(Forged(good, 4, 2)), FrameError::kVersion);
  EXPECT_EQ(Error(Forged(good, 5, 0)), FrameError::kType);
  EXPECT_EQ(Error(Forged(good, 5, 12)), FrameError::kType);
  EXPECT_EQ(Error(Forged(good, 6, 1)), FrameError::kReserved);
  EXPECT_EQ(Error(Forged(good, 15, 1)), FrameError::kLength);  // 16 MiB and more
}

TEST(FrameTest, LengthsAreBoundedByType) {
  struct Case {
    FrameType type;
    uint32_t length;
    bool allowed;
  };
  for (const Case& each : std::initializer_list<Case>{{FrameType::kData, 0, true},
                                                      {FrameType::kData, kChunkBytes, true},
                                                      {FrameType::kData, kChunkBytes + 1, false},
                                                      {FrameType::kSlot, kChunkBytes, true},
                                                      {FrameType::kSlot, kChunkBytes + 1, false},
                                                      {FrameType::kSlot, 0, false},
                                                      {FrameType::kHello, kHelloBytes, true},
                                                      {FrameType::kHello, kHelloBytes - 1, false},
                                                      {FrameType::kFault, kTextBytes, true},
                                                      {FrameType::kFault, kTextBytes + 1, false},
                                                      {FrameType::kBeat, 0, true},
                                                      {FrameType::kBeat, 1, false},
                                                      {FrameType::kReady, 1, false},
                                                      {FrameType::kCredit, 1, false},
                                                      {FrameType::kBye, 1, false}}) {
    const FrameHeader bytes = EncodeFrame({.type = each.type, .length = each.length});
    EXPECT_EQ(Error(bytes), each.allowed ? FrameError::kNone : FrameError::kLength)
        << static_cast<int>(each.type) << ", " << each.length;
  }
}

TEST(FrameTest, OnlyTheOwnFenceIsAdmitted) {
  const Fence fence{Data().group, Data().epoch, Data().source};
  EXPECT_TRUE(Admits(fence, Data()));
  Frame other = Data();
  other.epoch -= 1;
  EXPECT_FALSE(Admits(fence, other));
  other = Data();
  other.group += 1;
  EXPECT_FALSE(Admits(fence, other));
  other = Data();
  other.source = 2;
  EXPECT_FALSE(Admits(fence, other));
}

TEST(HelloTest, SurvivesTheWire) {
  HelloBody body;
  for (uint8_t i = 0; i < 16; ++i) {
    body.caller_nonce[i] = i;
    body.callee_nonce[i] = static_cast<uint8_t>(100 + i);
  }
  body.slot_bytes = kChunkBytes;
  body.slot_count = 4;
  EXPECT_EQ(DecodeHello(EncodeHello(body)), body);
}

}  // namespace
}  // namespace annulus::transport
