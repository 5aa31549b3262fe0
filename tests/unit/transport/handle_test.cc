// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/handle.h"

#include "gtest/gtest.h"
#include "server/transport/host/socket.h"

namespace annulus::transport {
namespace {

HandleInfo Info() {
  HandleInfo info;
  info.rank = 2;
  info.size = 5;
  info.group = HashGroup("groups/a");
  info.epoch = 12;
  info.host = HashHost("node-1");
  for (uint8_t i = 0; i < 16; ++i) {
    info.nonce[i] = i;
    info.socket_name[i] = static_cast<uint8_t>(0xF0 + i);
  }
  EXPECT_TRUE(ParseAddress("10.1.2.3", &info));
  info.port = 4242;
  return info;
}

TEST(HandleTest, SurvivesTheWire) {
  EXPECT_EQ(DecodeHandle(EncodeHandle(Info())), Info());
  HandleInfo ipv6 = Info();
  ASSERT_TRUE(ParseAddress("fd00::7", &ipv6));
  EXPECT_EQ(DecodeHandle(EncodeHandle(ipv6)), ipv6);
}

TEST(HandleTest, EveryDamagedByteIsNoticed) {
  for (size_t at = 0; at < ANNULUS_TRANSPORT_HANDLE_BYTES; ++at) {
    annulusTransportHandle handle = EncodeHandle(Info());
    handle.bytes[at] ^= 0x40;
    EXPECT_FALSE(DecodeHandle(handle).has_value()) << "byte " << at;
  }
  EXPECT_FALSE(DecodeHandle(annulusTransportHandle{}).has_value());
}

TEST(HandleTest, ImpossibleRanksAreRefused) {
  for (const auto& [rank, size] :
       std::initializer_list<std::pair<int32_t, int32_t>>{{5, 5}, {-1, 5}, {0, 0}, {0, -1}}) {
    HandleInfo info = Info();
    info.rank = rank;
    info.size = size;
    EXPECT_FALSE(DecodeHandle(EncodeHandle(info)).has_value()) << rank << " of " << size;
  }
}

TEST(HandleTest, NamesTellGroupsAndHostsApart) {
  EXPECT_NE(HashGroup("groups/a"), HashGroup("groups/b"));
  EXPECT_NE(HashHost("node-1"), HashHost("node-2"));
  EXPECT_EQ(HashHost("node-1"), HashHost("node-1"));
  EXPECT_EQ(SocketName(Info()), "annulus-f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
}

TEST(AddressTest, OnlyAddressesThatAPeerCanDial) {
  HandleInfo info;
  EXPECT_TRUE(ParseAddress("127.0.0.1", &info));
  EXPECT_FALSE(info.ipv6);
  EXPECT_TRUE(ParseAddress("::1", &info));
  EXPECT_TRUE(info.ipv6);
  for (const char* bad : {"", "localhost", "0.0.0.0", "::", "127.0.0.1:80", "256.1.1.1"}) {
    EXPECT_FALSE(ParseAddress(bad, &info)) << bad;
  }
}

}  // namespace
}  // namespace annulus::transport
